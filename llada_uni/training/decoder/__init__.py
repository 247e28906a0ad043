"""Training of the image decoder: autoencoder, flow matching, distillation."""
