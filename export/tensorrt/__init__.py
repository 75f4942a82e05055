"""ONNX -> TensorRT engine. TensorRT 10 and 11 and TensorRT-RTX have one Python API, so one code path drives them.

bundle ──graph──> typed ONNX ──network──> parsed network ──build──> engine ──runtime──> parity
"""
