"""All benchmarks in turn: `python -m benchmarks`."""

from benchmarks import logme_vs_reference, real_data

logme_vs_reference.main()
real_data.main()
