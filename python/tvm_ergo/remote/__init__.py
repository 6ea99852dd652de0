"""Work spread over machines, on TVM's own RPC: a tracker, servers that measure, and a client that loses no job and counts none twice.

`client.Workers` hands jobs to whatever servers the tracker knows, `server.serve` runs one; `key` names what both have to agree on.
What a job is, a `Measurer` says: it is sent as text, once a session.
"""

from tvm_ergo.remote.client import Workers
from tvm_ergo.remote.key import compiler_key

__all__ = ["Workers", "compiler_key"]
