"""The model server: ONNX models behind the Open Inference Protocol v2 and OpenAI's embeddings API.

One process, one loop, one Unix socket per loaded model version. A request walks
``connection`` (bytes to requests) -> ``endpoint`` (which call) -> ``lane`` (queue, batch, compute) -> back.
Nothing is imported here, so that a reader of one part pays for one.
"""
