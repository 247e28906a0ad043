"""Parts of a model as graphs of fixed shapes, for runtimes that know nothing of this program: `torch.export` and ONNX."""
