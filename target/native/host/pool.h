/* A few threads that share out the parts of one instruction. */
#ifndef ERGO_POOL_H
#define ERGO_POOL_H

/* task(user, i) for every i below `tasks`, in any order, on up to `threads` threads. While another caller has the
 * threads: here alone. */
void ergo_pool_run(int threads, int tasks, void (*task)(void *user, int index), void *user);

#endif
