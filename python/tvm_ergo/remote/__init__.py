"""Work spread over processes and machines: workers that measure, and a client that loses no job and counts none twice.

`client.Workers` hands jobs to workers at addresses (`endpoints.Address`) or in processes of its own
(`endpoints.Process`); `worker.Worker` runs them on a machine. Messages are JSON in frames (`channel`), behind a proof
on both sides that they have the same key (`greeting`, `key_file`). Nothing that arrives is code, and nothing is
unpickled: what a job is, a `server.Measurer` says, out of a fixed list."""

from tvm_ergo.remote.client import Workers
from tvm_ergo.remote.key import compiler_key

__all__ = ["Workers", "compiler_key"]
