"""What runs jobs, and what holds it: WebAssembly, programs, Python functions, language models, Dask."""
