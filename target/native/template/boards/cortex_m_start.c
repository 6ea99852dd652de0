/* Vectors and start of a Cortex-M; input, output and exit through semihosting. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

extern uint8_t __stack[], __data_start[], __data_end[], __data_load[], __bss_start__[], __bss_end__[];
extern void initialise_monitor_handles(void);
int main(void);
void _start(void);
void _init(void) {}
void _fini(void) {}

static void stop(void) {
  for (;;) {
  }
}

void _start(void) {
  memcpy(__data_start, __data_load, (size_t)(__data_end - __data_start));
  memset(__bss_start__, 0, (size_t)(__bss_end__ - __bss_start__));
  initialise_monitor_handles();
  exit(main());
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    __stack, (const void *)_start, (const void *)stop, (const void *)stop};
