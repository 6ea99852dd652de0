"""What a compiled model's file says of the model, read strictly: anybody may have written it."""

from __future__ import annotations

import base64
import math
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

import numpy as np
import pydantic

from tvm_ergo.frontend import TensorInfo
from tvm_ergo.frontend.imported import StateInfo
from tvm_ergo.relay_passes.micro.lower_quantized import HostFallback
from tvm_ergo.target.chip import Chip
from tvm_ergo.target.errors import ProgramError
from tvm_ergo.target.limits import Declared, parsed_json

DTYPES = (
    "float32",
    "int8",
    "int32",
    "uint8",
    "int64",
    "float64",
    "int16",
    "float16",
    "bool",
    "uint16",
    "uint32",
    "uint64",
)
Dimension = Annotated[int, pydantic.Field(ge=0, lt=1 << 48)]


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, extra="forbid")


class _Tensor(_Strict):
    name: str
    shape: Annotated[list[Dimension], pydantic.Field(max_length=16)]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None

    def info(self, declared: Declared) -> TensorInfo:
        if self.dtype not in DTYPES:
            raise ValueError(f"tensor {self.name!r} has the dtype {self.dtype[:40]!r}")
        declared.note_tensor(self.shape, 8, f"tensor {self.name!r}")
        quantized = self.scale is not None and self.zero_point is not None and math.isfinite(self.scale)
        return TensorInfo(
            self.name,
            tuple(self.shape),
            self.dtype,
            self.scale if quantized else None,
            self.zero_point if quantized else None,
        )


class _State(_Tensor):
    initial: str

    def state(self, declared: Declared) -> StateInfo:
        info, content = self.info(declared), base64.b64decode(self.initial, validate=True)
        if len(content) != math.prod(info.shape) * np.dtype(info.dtype).itemsize:
            raise ValueError(f"state {self.name!r} has a first value of another size than its shape")
        initial = np.frombuffer(content, np.dtype(info.dtype).newbyteorder("<")).astype(info.dtype).reshape(info.shape)
        return StateInfo(info.name, info.shape, info.dtype, info.scale, info.zero_point, initial=initial)


def stored_state(state: StateInfo) -> dict:
    """What a file says of a state."""
    initial = np.ascontiguousarray(state.initial, np.dtype(state.dtype).newbyteorder("<"))
    return {
        **asdict(TensorInfo(state.name, state.shape, state.dtype, state.scale, state.zero_point)),
        "initial": base64.b64encode(initial.tobytes()).decode(),
    }


class _Fallback(_Strict):
    node: str
    op: str
    reason: str
    remedy: str


class _Entry(_Strict):
    kind: Literal["whole", "prefill", "decode"]
    length: Annotated[int, pydantic.Field(ge=1, lt=1 << 31)]
    pads: bool
    inputs: list[_Tensor]
    outputs: list[_Tensor]
    states: list[_State]

    def entry(self, declared: Declared) -> EntryMeta:
        ports = [tuple(t.info(declared) for t in tensors) for tensors in (self.inputs, self.outputs)]
        states = tuple(s.state(declared) for s in self.states)
        return EntryMeta(self.kind, self.length, self.pads, *ports, states)


class _Meta(_Strict):
    chip: dict
    source: str
    inputs: list[_Tensor]
    outputs: list[_Tensor]
    fallbacks: list[_Fallback]
    states: list[_State] = []
    entries: Annotated[list[_Entry], pydantic.Field(max_length=1024)] = []


@dataclass(frozen=True)
class EntryMeta:
    """What the file says of an entry (`tvm_ergo.entries.Entry`)."""

    kind: str
    length: int
    pads: bool
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    states: tuple[StateInfo, ...]


@dataclass(frozen=True)
class Meta:
    """chip : what it was compiled for. inputs, outputs : the source model's. fallbacks : host operators. source : the
    model's file. states : what lives from one run to the next."""

    chip: Chip
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    fallbacks: tuple[HostFallback, ...]
    source: str
    states: tuple[StateInfo, ...] = ()
    entries: tuple[EntryMeta, ...] = ()

    @classmethod
    def read(cls, sections: dict[str, bytes], path: str, declared: Declared) -> Meta:
        """declared : takes what its tensors ask for, unchecked. Errors: ProgramError for a part that is missing or of
        another kind, TargetError for a chip that is none."""
        try:
            meta = _Meta.model_validate(parsed_json(sections["meta"]))
            inputs, outputs = (tuple(t.info(declared) for t in tensors) for tensors in (meta.inputs, meta.outputs))
            states = tuple(s.state(declared) for s in meta.states)
            entries = tuple(e.entry(declared) for e in meta.entries)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            what = f"{'.'.join(map(str, first['loc'])) or 'meta'}: {first['msg']}"
        except (KeyError, ValueError) as error:
            what = str(error)
        else:
            return cls(
                Chip.from_json(meta.chip, path),
                inputs,
                outputs,
                tuple(HostFallback(**f.model_dump()) for f in meta.fallbacks),
                meta.source,
                states,
                entries,
            )
        raise ProgramError(f"the model file lacks a part: {what[:200]}", where=path, remedy="compile the model again")
