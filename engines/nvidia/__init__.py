"""NVIDIA GPUs: CUDA by pycuda, engines by TensorRT. Importing this needs neither."""
