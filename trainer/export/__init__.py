"""Exports a student: a transformers folder, CTranslate2, ONNX Runtime, whisper.cpp; each checked by transcribing."""
