"""The library of problems, one file each, registered under the entry points `gdcompare.problems`."""
