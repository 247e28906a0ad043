"""Matrix products in C++ for a CPU, compiled on the machine they run on: `build` compiles, `products` calls."""
