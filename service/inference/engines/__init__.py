"""The runtimes that compute a bundle's engine files: ONNX Runtime, OpenVINO, TensorRT; and the choice among them."""
