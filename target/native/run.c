/* One inference: inputs in, instructions in program order, outputs out. */
#include "ergo_internal.h"

static const char *const names[] = {"ERGO_OK",
                                    "ERGO_NULL",
                                    "ERGO_NOT_A_PROGRAM",
                                    "ERGO_WRONG_VERSION",
                                    "ERGO_TRUNCATED",
                                    "ERGO_CHECKSUM",
                                    "ERGO_MALFORMED",
                                    "ERGO_UNKNOWN_INSTRUCTION",
                                    "ERGO_UNKNOWN_CODEC",
                                    "ERGO_OUTSIDE_MEMORY",
                                    "ERGO_PRECONDITION",
                                    "ERGO_ARENA_TOO_SMALL",
                                    "ERGO_WORKSPACE_TOO_SMALL",
                                    "ERGO_NO_SUCH_PORT",
                                    "ERGO_BAD_CONSTANT",
                                    "ERGO_BROKEN_CODE",
                                    "ERGO_STOPPED"};

const char *ergo_status_name(ergo_status status) {
  return (unsigned)status < sizeof names / sizeof *names ? names[status] : "unknown";
}

size_t ergo_arena_bytes(const ergo_net *net) { return net ? (size_t)(net->memory_bytes - net->constant_bytes) : 0; }

size_t ergo_workspace_bytes(const ergo_net *net) { return net ? net->workspace_bytes : 0; }

static uint64_t u64(const uint8_t *p) { return (uint32_t)ergo_i32(p) | (uint64_t)(uint32_t)ergo_i32(p + 4) << 32; }

ergo_status ergo_start(const ergo_net *net, void *arena, size_t arena_bytes) {
  if (!net || !net->bytes || !arena) return ERGO_NULL;
  if (arena_bytes < ergo_arena_bytes(net)) return ERGO_ARENA_TOO_SMALL;
  memset(arena, 0, ergo_arena_bytes(net));
  const uint8_t *at = net->bytes + net->data_at;
  for (uint32_t i = 0; i < net->sections; i++) {
    uint64_t addr = u64(at), size = u64(at + 8), skip = addr < net->constant_bytes ? net->constant_bytes - addr : 0;
    if (skip < size)
      memcpy((uint8_t *)arena + (addr + skip - net->constant_bytes), at + 16 + skip, (size_t)(size - skip));
    at += 16 + size;
  }
  return ERGO_OK;
}

/* Elements of a dense array to their places, or back. */
static void copy_port(const ergo_operand *t, uint8_t *place, uint8_t *dense, int in) {
  uint32_t index[ERGO_MAX_RANK] = {0}, size = ergo_itemsize(t->dtype);
  for (;;) {
    memcpy(in ? place : dense, in ? dense : place, size);
    dense += size;
    unsigned axis = t->rank;
    while (axis-- > 0) {
      place += t->strides[axis];
      if (++index[axis] < t->shape[axis]) break;
      place -= (int64_t)t->strides[axis] * t->shape[axis], index[axis] = 0;
    }
    if (axis == (unsigned)-1) return;
  }
}

ergo_status ergo_set_input(const ergo_net *net, void *arena, uint32_t index, const void *values, size_t bytes) {
  ergo_port port;
  if (!net || !arena || !values) return ERGO_NULL;
  ergo_status status = ergo_input(net, index, &port);
  if (status) return status;
  if (port.streamed || bytes != port.bytes) return ERGO_NO_SUCH_PORT;
  uint8_t *place = (uint8_t *)arena + (port.operand.addr - net->constant_bytes);
  if (ergo_is_contiguous(&port.operand))
    memcpy(place, values, bytes);
  else
    copy_port(&port.operand, place, (uint8_t *)(uintptr_t)values, 1);
  return ERGO_OK;
}

ergo_status ergo_get_output(const ergo_net *net, const void *arena, uint32_t index, void *values, size_t bytes) {
  ergo_port port;
  if (!net || !arena || !values) return ERGO_NULL;
  ergo_status status = ergo_output(net, index, &port);
  if (status) return status;
  if (bytes != port.bytes) return ERGO_NO_SUCH_PORT;
  const uint8_t *place = (const uint8_t *)arena + (port.operand.addr - net->constant_bytes);
  if (ergo_is_contiguous(&port.operand))
    memcpy(values, place, bytes);
  else
    copy_port(&port.operand, (uint8_t *)(uintptr_t)place, values, 0);
  return ERGO_OK;
}

ergo_status ergo_run(ergo_net *net, void *arena, size_t arena_bytes, void *workspace, size_t workspace_bytes,
                     ergo_receive receive, void *user) {
  if (!net || !net->bytes || !arena || (net->workspace_bytes && !workspace)) return ERGO_NULL;
  if (arena_bytes < ergo_arena_bytes(net)) return ERGO_ARENA_TOO_SMALL;
  if (workspace_bytes < net->workspace_bytes) return ERGO_WORKSPACE_TOO_SMALL;
  ergo_ctx ctx;
  memset(&ctx, 0, sizeof ctx);
  ctx.net = net, ctx.memory = arena, ctx.base = net->constant_bytes, ctx.work = workspace,
  ctx.work_bytes = net->workspace_bytes;
  ctx.receive = receive, ctx.user = user;
  size_t at = net->code_at;
  for (uint32_t index = 0; index < net->instructions; index++) {
    ergo_ins ins;
    net->failed = index;
    ergo_status status = ergo_parse(net->bytes + at, net->size - at, &ins);
    if (!status) ctx.work_used = 0, status = ergo_execute(&ctx, &ins);
    if (status) return status;
    at += ins.length;
  }
  return ERGO_OK;
}
