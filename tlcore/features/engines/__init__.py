"""Ways to run a network forward: the same features, in less time.

eager        the network as it is, float32
folded       channels_last, batch norms folded into convolutions, float32
bf16         folded, in bfloat16, where the hardware multiplies that
onnxruntime  exported with torch.onnx and run by ONNX Runtime, float32, on the CPU
compiled     folded, through torch.compile with frozen weights; bfloat16 where the hardware multiplies that
"""
