/* What the emulator calls: instructions one by one or many at once, on its own memory. */
#include <stdlib.h>

#include "coded.h"
#include "fast.h"
#include "product.h"
#include "transposed.h"

#define EXPORT __attribute__((visibility("default")))
#define INTERFACE 3

typedef struct ergo_host {
  ergo_ins ins;
  ergo_fast *fast;
  ergo_product *product;
  ergo_transposed *transposed;
  ergo_ins plain; /* of a fast kernel: the operands as they are, or, of coded rows, without their code */
} ergo_host;

static int is_packed(const ergo_host *host) { return host->fast || host->product || host->transposed; }

static void forget(ergo_host *host) {
  ergo_fast_free(host->fast), ergo_product_free(host->product), ergo_transposed_free(host->transposed);
  host->fast = NULL, host->product = NULL, host->transposed = NULL;
}

EXPORT int ergo_host_interface(void) { return INTERFACE; }

EXPORT int ergo_host_best_path(void) { return ergo_best_path(); }

EXPORT const char *ergo_host_path_name(int path) { return ergo_path_at(path) ? ergo_path_at(path)->name : NULL; }

EXPORT int ergo_host_path_usable(int path) { return ergo_path_at(path) && ergo_path_at(path)->usable(); }

/* An instruction's bytes, for a memory of so many. Null, and why, where it is not known or does not fit. */
EXPORT ergo_host *ergo_host_new(const uint8_t *bytes, size_t size, uint64_t memory_bytes, int *status) {
  ergo_host *host = calloc(1, sizeof *host);
  if (!host) return *status = ERGO_WORKSPACE_TOO_SMALL, NULL;
  *status = ergo_parse(bytes, size, &host->ins);
  for (unsigned i = 0; i < host->ins.operands && !*status; i++) {
    int64_t low, high;
    if (!ergo_extent(&host->ins.t[i], &low, &high) || low < 0 || (uint64_t)high > memory_bytes)
      *status = ERGO_OUTSIDE_MEMORY;
  }
  if (!*status) *status = ergo_check(&host->ins);
  if (!*status) return host;
  free(host);
  return NULL;
}

/* Packs constant weights for a path. 1 where there is a fast kernel now. Of MATMUL and WEIGHTED_MEAN w is the right
 * side, or null where it is no constant; the others are not used. */
EXPORT int ergo_host_pack(ergo_host *host, int path, const int8_t *w, const int32_t *bias, const int32_t *mult,
                          const int8_t *shift) {
  uint8_t opcode = host->ins.op->opcode;
  forget(host);
  if (opcode == 0x04 || opcode == 0x05)
    host->product = ergo_product_new(&host->ins, path, w);
  else if (w && opcode == 0x03)
    host->transposed = ergo_transposed_new(&host->ins, path, w, bias, mult, shift);
  else if (w && (opcode == 0x01 || opcode == 0x02))
    host->plain = ergo_plain_of(&host->ins), host->fast = ergo_fast_new(&host->plain, path, w, bias, mult, shift);
  return is_packed(host);
}

EXPORT void ergo_host_free(ergo_host *host) {
  if (!host) return;
  forget(host);
  free(host);
}

/* Products that a path's inner kernel does in `rounds` tiles of operands that stay in the first cache: what it can
 * reach. */
EXPORT double ergo_host_tile(int path, long rounds) {
  enum { STEPS = 64 };
  static uint8_t a[ERGO_MOST_ROWS * STEPS * 8], w[ERGO_MOST_WIDTH * STEPS * 8] __attribute__((aligned(64)));
  int32_t acc[ERGO_MOST_ROWS * ERGO_MOST_WIDTH] __attribute__((aligned(64)));
  const ergo_path *p = ergo_path_at(path);
  for (long i = 0; i < rounds; i++) p->tile(a, STEPS * 4, p->rows, w, STEPS, acc);
  return (double)rounds * p->rows * p->width * p->step * STEPS;
}

/* By its fast kernel or its plain one, through its table. */
static ergo_status execute(const ergo_host *host, ergo_ctx *ctx, int threads) {
  const ergo_ins *ins = &host->ins;
  if (host->fast) return ergo_coded_run(host->fast, ctx, ins, &host->plain, threads);
  if (!is_packed(host)) return ergo_execute(ctx, ins);
  const ergo_operand *out = &ins->t[ergo_out_of(ins)];
  ergo_status status = host->product ? ergo_product_run(host->product, ctx, ins, threads)
                                     : ergo_transposed_run(host->transposed, ctx, threads);
  if (!status && ins->table) ergo_look_up(ctx, ins, out, ergo_at(ctx, out));
  return status;
}

typedef struct stream {
  const uint8_t *data;
  uint64_t bytes;
} stream;

static int receive(void *user, uint32_t port, uint32_t offset, uint32_t size, void *destination) {
  const stream *s = (const stream *)user + port;
  if (!s->data || offset > s->bytes || size > s->bytes - offset) return 1;
  memcpy(destination, s->data + offset, size);
  return 0;
}

/* Runs `count` instructions; how many were done, and why it stopped before the end. streams: of every input port.
 * dropped: int64[9] or null. */
EXPORT long ergo_host_run(ergo_host *const *list, long count, uint8_t *memory, const stream *streams, int threads,
                          int64_t *dropped, int *status) {
  size_t most = 0;
  *status = ERGO_OK;
  for (long i = 0; i < count; i++) {
    size_t bytes = is_packed(list[i]) || !list[i]->ins.op->workspace ? 0 : list[i]->ins.op->workspace(&list[i]->ins);
    if (bytes > most) most = bytes;
  }
  void *work = most ? malloc(most) : NULL;
  if (most && !work) return *status = ERGO_WORKSPACE_TOO_SMALL, 0;
  ergo_ctx ctx;
  memset(&ctx, 0, sizeof ctx);
  ctx.memory = memory, ctx.work = work, ctx.work_bytes = most, ctx.receive = receive,
  ctx.user = (void *)(uintptr_t)streams, ctx.dropped = dropped;
  long done = 0;
  for (; done < count; done++) {
    ctx.work_used = 0, ctx.status = ERGO_OK;
    *status = execute(list[done], &ctx, threads);
    if (*status) break;
  }
  free(work);
  return done;
}

/* What a whole Program's bytes need: its status as `ergo_load` has it; arena, workspace and constants, bytes; the
 * instruction that failed. */
EXPORT int ergo_host_load(const uint8_t *program, size_t size, uint64_t needs[3], uint32_t *failed) {
  ergo_net net;
  int status = (int)ergo_load(&net, program, size);
  needs[0] = ergo_arena_bytes(&net), needs[1] = ergo_workspace_bytes(&net), needs[2] = net.constant_bytes,
  *failed = net.failed;
  return status;
}

EXPORT const char *ergo_host_status_name(int status) { return ergo_status_name((ergo_status)status); }
