"""ONNX graphs as data: typed for FP16, and other people's wrapped into the frame model contract."""
