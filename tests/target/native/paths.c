/* Executes instructions on every code path of the processor that it is run on. A file of cases: u32 sizes of
 * instruction, memory, and of four arrays to pack (0: null), then all their bytes. Writes, for each case and path, u8 path, u8 whether packed, u8 status, and the memory; path 255: plain. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct ergo_host ergo_host;
ergo_host *ergo_host_new(const uint8_t *bytes, size_t size, uint64_t memory_bytes, int *status);
int ergo_host_pack(ergo_host *host, int path, const int8_t *w, const int32_t *bias, const int32_t *mult,
                   const int8_t *shift);
long ergo_host_run(ergo_host *const *list, long count, uint8_t *memory, const void *streams, int threads,
                   int64_t *dropped, int *status);
void ergo_host_free(ergo_host *host);
const char *ergo_host_path_name(int path);
int ergo_host_path_usable(int path);

static void *taken(FILE *file, uint32_t size) {
  if (!size) return NULL;
  void *bytes = aligned_alloc(64, (size + 127u) / 64 * 64);
  if (!bytes || fread(bytes, 1, size, file) != size) exit(3);
  return bytes;
}

int main(int argc, char **argv) {
  FILE *file = argc > 2 ? fopen(argv[1], "rb") : NULL, *out = file ? fopen(argv[2], "wb") : NULL;
  uint32_t sizes[6];
  if (!out) return 2;
  for (int i = 0; ergo_host_path_name(i); i++)
    if (ergo_host_path_usable(i)) printf("%d %s\n", i, ergo_host_path_name(i));
  while (fread(sizes, sizeof *sizes, 6, file) == 6) {
    void *all[6];
    for (int i = 0; i < 6; i++) all[i] = taken(file, sizes[i]);
    for (int path = -1; path < 0 || ergo_host_path_name(path); path++) {
      if (path >= 0 && !ergo_host_path_usable(path)) continue;
      int status;
      uint8_t *memory = malloc(sizes[1]);
      ergo_host *host = ergo_host_new(all[0], sizes[0], sizes[1], &status);
      if (!host || !memory) return 4;
      memcpy(memory, all[1], sizes[1]);
      uint8_t packed = path >= 0 && ergo_host_pack(host, path, all[2], all[3], all[4], all[5]);
      ergo_host_run(&host, 1, memory, NULL, 2, NULL, &status);
      uint8_t head[3] = {(uint8_t)path, packed, (uint8_t)status};
      fwrite(head, 1, 3, out), fwrite(memory, 1, sizes[1], out);
      ergo_host_free(host), free(memory);
    }
    for (int i = 0; i < 6; i++) free(all[i]);
  }
  return fclose(out) || fclose(file);
}
