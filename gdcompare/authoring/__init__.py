"""For authors of problems, backends and checks: a file to start from, what a backend lacks, faults on purpose."""
