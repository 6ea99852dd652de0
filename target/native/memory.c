/* Where operands are: in the arena, or among the constants in the Program's own bytes. */
#include "ergo_internal.h"

static uint64_t u64(const uint8_t *p) { return (uint32_t)ergo_i32(p) | (uint64_t)(uint32_t)ergo_i32(p + 4) << 32; }

int ergo_find_section(const ergo_net *net, uint64_t low, uint64_t high, const uint8_t **place) {
  const uint8_t *at = net->bytes + net->data_at;
  for (uint32_t i = 0; i < net->sections; i++) {
    uint64_t addr = u64(at), size = u64(at + 8);
    if (addr <= low && high <= addr + size) {
      *place = at + 16 + (low - addr);
      return 1;
    }
    at += 16 + size;
  }
  return 0;
}

uint8_t *ergo_at(const ergo_ctx *ctx, const ergo_operand *operand) {
  if (ctx->net && operand->addr < ctx->net->constant_bytes) { /* load.c saw that it lies in one section whole */
    int64_t low = 0, high = 0;
    const uint8_t *place = NULL;
    if (!ergo_extent(operand, &low, &high) || !ergo_find_section(ctx->net, (uint64_t)low, (uint64_t)high, &place))
      return NULL;
    return (uint8_t *)(uintptr_t)(place + (operand->addr - low)); /* only read from */
  }
  return ctx->memory + (operand->addr - ctx->base);
}

void *ergo_take(ergo_ctx *ctx, size_t bytes) {
  size_t size = ERGO_ROUND(bytes);
  if (size < bytes || size > ctx->work_bytes - ctx->work_used) {
    ctx->status = ERGO_WORKSPACE_TOO_SMALL;
    return NULL;
  }
  void *found = ctx->work + ctx->work_used;
  ctx->work_used += size;
  return found;
}
