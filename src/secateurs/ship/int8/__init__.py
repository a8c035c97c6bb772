"""Quantization to int8 for ONNX Runtime: calibration, compensation, layers left in float32."""
