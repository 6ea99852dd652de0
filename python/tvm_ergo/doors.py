"""What `import tvm` opens: target tags, global functions, the BYOC hook, and build pipelines that know the chip.

Runs inside ``import tvm`` (entry point group ``tvm.backends``), so it imports nothing heavy: every function registered
here imports its implementation when it is first called. The private parts of TVM this product leans on are used here
only: ``relax.pipeline.PIPELINE_MAP``, ``tirx.compilation_pipeline.PIPELINE_MAP``."""

from __future__ import annotations

RELAX_PIPELINES = ("default", "default_build")
"""TVM's names for the generic Relax build pipeline: under an Ergo target they become ours."""
TIR_PIPELINE = "s_tir"
"""TVM's name for the default TIR pipeline."""


def open_doors() -> None:
    """Registers the backend with TVM. Idempotent."""
    from tvm_ergo.codegen.runtime.native import load_library
    from tvm_ergo.target.tags import register_tags

    register_tags()
    _register_errors()
    load_library()
    _register_functions()
    _dispatch_pipelines()


def _register_errors() -> None:
    """Lets our error types cross TVM's function boundary as themselves."""
    import tvm_ffi

    from tvm_ergo.target import errors

    for value in vars(errors).values():
        if isinstance(value, type) and issubclass(value, errors.ErgoError):
            tvm_ffi.register_error(value)


def _register_functions() -> None:
    import tvm_ffi

    for name, function in {
        "relax.ext.ergo": _compile_relax_functions,
        "target.build.ext_dev": _build_prim_functions,
        "tvm_ergo.runtime.load": _load_program,
        "tvm_ergo.codecs.encode": _encode_slots,
        "tvm_ergo.codecs.decode": _decode_slots,
    }.items():
        tvm_ffi.register_global_func(name, function, override=True)


def _compile_relax_functions(functions, options, constant_names):
    """BYOC hook: Relax functions of the integer dialect -> one runtime module."""
    from tvm_ergo.codegen.byoc import compile_functions

    return compile_functions(functions)


def _build_prim_functions(mod, target):
    """Device code generator of the kind ext_dev: functions already compiled by `tvm_ergo.codegen.tir` -> one runtime
    module."""
    from tvm_ergo.codegen.tir.build import module_of_compiled

    return module_of_compiled(mod, target)


def _load_program(symbol, data):
    from tvm_ergo.codegen.runtime.launcher import load

    return load(symbol, data)


def _encode_slots(*args):
    from tvm_ergo.relay_passes.dialect.compression import encode

    encode(*args)


def _decode_slots(*args):
    from tvm_ergo.relay_passes.dialect.compression import decode

    decode(*args)


def _dispatch_pipelines() -> None:
    from tvm.relax.pipeline import PIPELINE_MAP as relax_pipelines
    from tvm.tirx.compilation_pipeline import PIPELINE_MAP as tir_pipelines

    for name in RELAX_PIPELINES:
        if not hasattr(relax_pipelines[name], "_tvm_ergo"):
            relax_pipelines[name] = _dispatching_relax(relax_pipelines[name])
    relax_pipelines["ergo"] = _ergo_pipeline
    if not hasattr(tir_pipelines[TIR_PIPELINE], "_tvm_ergo"):
        tir_pipelines[TIR_PIPELINE] = _dispatching_tir(tir_pipelines[TIR_PIPELINE])


def _ergo_pipeline():
    from tvm_ergo.pipeline import build_pipeline

    return build_pipeline()


def _dispatching_relax(standard):
    """A pipeline factory whose pass is ours under an Ergo target and ``standard``'s under any other."""

    def factory(**options):
        import tvm

        from tvm_ergo.target.tags import is_ergo

        otherwise = standard(**options)

        @tvm.transform.module_pass(opt_level=0)
        def _pipeline(mod, _context):
            return _ergo_pipeline()(mod) if is_ergo(tvm.target.Target.current()) else otherwise(mod)

        return _pipeline

    factory._tvm_ergo = True
    return factory


def _dispatching_tir(standard):
    """A TIR pipeline factory that first turns functions bound to an Ergo target into Programs, then runs ``standard``
    on the rest."""

    def factory(**options):
        import tvm

        from tvm_ergo.target.tags import is_ergo

        otherwise, finalize_host, finalize_device = standard(**options)

        @tvm.transform.module_pass(opt_level=0)
        def _pipeline(mod, _context):
            # a Relax function never belongs here, whatever the target: TVM would fail on it later, without saying why
            if not any(
                isinstance(f, tvm.relax.Function) or (f.attrs is not None and is_ergo(f.attrs.get("target", None)))
                for f in mod.functions.values()
            ):
                return otherwise(mod)
            from tvm_ergo.codegen.tir.build import compile_prim_functions, join

            compiled, rest = compile_prim_functions(mod)
            return join(compiled, otherwise(rest))

        return _pipeline, finalize_host, finalize_device

    factory._tvm_ergo = True
    return factory
