"""Readers of benchmark results: vLLM, SGLang, AIPerf and GenAI-Perf, GuideLLM."""
