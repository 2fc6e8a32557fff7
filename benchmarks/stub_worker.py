"""The program of a worker process of `pipeline.py`: as Waldo's, but with the stub for a GPU."""

from pipeline import StubDevice

from indexer.workers import worker_program

if __name__ == "__main__":
    vars(worker_program)["extractor_of"] = lambda fingerprint, _, batch_size: StubDevice(
        fingerprint["ms"], batch_size
    )
    worker_program.main()
