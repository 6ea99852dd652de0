// The carrier of compiled Programs inside a TVM executable: symbol name -> Program bytes, nothing else.
// The bytes are opaque here. Running them is the business of the Python launcher, reached through one global function.
#include <tvm/ffi/container/map.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/reflection/registry.h>
#include <tvm/ffi/string.h>

#include <cstdint>
#include <cstring>
#include <mutex>
#include <string>
#include <utility>

namespace tvm_ergo {

namespace ffi = tvm::ffi;

class ProgramModule : public ffi::ModuleObj {
 public:
  explicit ProgramModule(ffi::Map<ffi::String, ffi::Bytes> programs) : programs_(std::move(programs)) {}

  const char* kind() const final { return "ergo"; }

  int GetPropertyMask() const final { return ffi::Module::kBinarySerializable | ffi::Module::kRunnable; }

  bool ImplementsFunction(const ffi::String& name) final { return programs_.count(name) != 0; }

  // The launcher decodes and checks the Program once, and returns the function the virtual machine then calls.
  // Any thread may ask. Nothing is called under the lock: the launcher takes Python's, which another caller may hold while it waits for this one.
  ffi::Optional<ffi::Function> GetFunction(const ffi::String& name) final {
    if (programs_.count(name) == 0) return std::nullopt;
    {
      std::lock_guard<std::mutex> guard(mutex_);
      if (functions_.count(name) != 0) return functions_[name];
    }
    ffi::Function load = ffi::Function::GetGlobalRequired("tvm_ergo.runtime.load");
    ffi::Function made = load(name, programs_[name]).cast<ffi::Function>();
    std::lock_guard<std::mutex> guard(mutex_);
    if (functions_.count(name) == 0) functions_.Set(name, made);  // the first one stays
    return functions_[name];
  }

  // Repeated: u64 length of the name, name, u64 length of the Program, Program. Lengths in the machine's byte order.
  ffi::Bytes SaveToBytes() const final {
    std::string out;
    auto put = [&out](const char* data, uint64_t size) {
      out.append(reinterpret_cast<const char*>(&size), sizeof(size)).append(data, size);
    };
    for (const auto& [name, program] : programs_) {
      put(name.data(), name.size());
      put(program.data(), program.size());
    }
    return ffi::Bytes(std::move(out));
  }

  static ffi::Module LoadFromBytes(const ffi::Bytes& bytes) {
    ffi::Map<ffi::String, ffi::Bytes> programs;
    size_t at = 0;
    auto get = [&bytes, &at]() {
      uint64_t size = 0;
      if (bytes.size() - at < sizeof(size)) TVM_FFI_THROW(ProgramError) << "module of kind ergo is truncated";
      std::memcpy(&size, bytes.data() + at, sizeof(size));
      at += sizeof(size);
      if (bytes.size() - at < size) TVM_FFI_THROW(ProgramError) << "module of kind ergo is truncated";
      std::string text(bytes.data() + at, size);
      at += size;
      return text;
    };
    while (at < bytes.size()) {
      std::string name = get();
      programs.Set(ffi::String(std::move(name)), ffi::Bytes(get()));
    }
    return Create(std::move(programs));
  }

  static ffi::Map<ffi::String, ffi::Bytes> Programs(const ffi::Module& module) {
    if (std::strcmp(module->kind(), "ergo") != 0) TVM_FFI_THROW(ValueError) << "a module of kind " << module->kind() << " holds no Programs";
    return static_cast<const ProgramModule*>(module.get())->programs_;
  }

  static ffi::Module Create(ffi::Map<ffi::String, ffi::Bytes> programs) {
    return ffi::Module(ffi::make_object<ProgramModule>(std::move(programs)));
  }

 private:
  ffi::Map<ffi::String, ffi::Bytes> programs_;
  ffi::Map<ffi::String, ffi::Function> functions_;
  std::mutex mutex_;  // of functions_; programs_ never changes
};

TVM_FFI_STATIC_INIT_BLOCK() {
  tvm::ffi::reflection::GlobalDef()
      .def("ffi.Module.load_from_bytes.ergo", &ProgramModule::LoadFromBytes)
      .def("tvm_ergo.runtime.create_module", &ProgramModule::Create)
      .def("tvm_ergo.runtime.programs", &ProgramModule::Programs);
}

}  // namespace tvm_ergo
