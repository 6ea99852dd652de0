/* Executes Ergo Programs: bit for bit what the emulator's NumPy kernels say.
 *
 * Nothing here allocates, and nothing but the C library's memory functions is needed. A Program's bytes may stand in
 * read-only memory: constants are read where they are. What a run needs is one arena (`ergo_arena_bytes`) and, where
 * tensors or weights are stored coded, a workspace (`ergo_workspace_bytes`); both may be static arrays.
 */
#ifndef ERGO_H
#define ERGO_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum ergo_status {
  ERGO_OK = 0,
  ERGO_NULL,                /* a pointer that is needed is null */
  ERGO_NOT_A_PROGRAM,       /* another magic */
  ERGO_WRONG_VERSION,       /* a Program of another version */
  ERGO_TRUNCATED,           /* fewer or more bytes than the header says */
  ERGO_CHECKSUM,            /* the bytes were changed */
  ERGO_MALFORMED,           /* a field that cannot be read or is out of its range */
  ERGO_UNKNOWN_INSTRUCTION, /* an instruction, or a form of one, that this runtime was built without */
  ERGO_UNKNOWN_CODEC,       /* a code that this runtime was built without */
  ERGO_OUTSIDE_MEMORY,      /* an operand, a port or a section outside the Program's memory */
  ERGO_PRECONDITION,        /* an instruction's own preconditions do not hold */
  ERGO_ARENA_TOO_SMALL,
  ERGO_WORKSPACE_TOO_SMALL,
  ERGO_NO_SUCH_PORT, /* a port's number, or the size of its array */
  ERGO_BAD_CONSTANT, /* a multiplier, shift, table or index in memory that is out of its range */
  ERGO_BROKEN_CODE,  /* slots, weights or a sparse matrix that no encoder wrote */
  ERGO_STOPPED       /* the callback said no */
} ergo_status;

/* "ERGO_OK" and so on. */
const char *ergo_status_name(ergo_status status);

typedef enum ergo_dtype { ERGO_I8 = 0, ERGO_U8 = 1, ERGO_I16 = 2, ERGO_I32 = 3 } ergo_dtype;
#define ERGO_MAX_RANK 6

/* Where a tensor lies in the unified memory: byte address of its first element, bytes from one index to the next per
 * axis. */
typedef struct ergo_operand {
  uint32_t addr;
  uint32_t shape[ERGO_MAX_RANK];
  int32_t strides[ERGO_MAX_RANK];
  uint8_t dtype, codec, rank;
} ergo_operand;

/* An input or output of the whole Program. name is not terminated. bytes: of its dense array. */
typedef struct ergo_port {
  const char *name;
  uint32_t name_bytes, bytes;
  ergo_operand operand;
  uint8_t streamed;
} ergo_port;

/* A loaded Program: places in its bytes, which must stay where they are. Fields are the runtime's own. */
typedef struct ergo_net {
  const uint8_t *bytes;
  size_t size, inputs_at, outputs_at, data_at, code_at;
  uint32_t inputs, outputs, sections, instructions, nodes;
  uint64_t memory_bytes;
  uint32_t constant_bytes; /* addresses below are only read, each operand within one section: they need no arena */
  size_t workspace_bytes;
  uint32_t failed; /* after an error: the instruction that has it, from 0 */
} ergo_net;

/* Takes `size` bytes of a streamed port's dense array from byte `offset` on. Offsets of a frame's rows ascend. Nonzero
 * stops the run. */
typedef int (*ergo_receive)(void *user, uint32_t port, uint32_t offset, uint32_t size, void *destination);

/* Reads and checks everything that can be known without running. The net keeps pointers into `program`. */
ergo_status ergo_load(ergo_net *net, const void *program, size_t size);

size_t ergo_arena_bytes(const ergo_net *net);
size_t ergo_workspace_bytes(const ergo_net *net);
ergo_status ergo_input(const ergo_net *net, uint32_t index, ergo_port *port);
ergo_status ergo_output(const ergo_net *net, uint32_t index, ergo_port *port);

/* Between runs: fills the arena with what the Program's data has in it. Once before the first run, and again before a
 * run where the arena was used for something else. */
ergo_status ergo_start(const ergo_net *net, void *arena, size_t arena_bytes);

/* Copies a dense row-major array of exactly the port's bytes in or out. */
ergo_status ergo_set_input(const ergo_net *net, void *arena, uint32_t index, const void *values, size_t bytes);
ergo_status ergo_get_output(const ergo_net *net, const void *arena, uint32_t index, void *values, size_t bytes);

/* One inference. receive may be null where no input is streamed; workspace where `ergo_workspace_bytes` is 0. */
ergo_status ergo_run(ergo_net *net, void *arena, size_t arena_bytes, void *workspace, size_t workspace_bytes,
                     ergo_receive receive, void *user);

#ifdef __cplusplus
}
#endif
#endif
