#define _GNU_SOURCE
#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>

#define MOST_WORKERS 7
#define SPINS 4000 /* a layer's successor usually comes within microseconds */

static pthread_mutex_t busy = PTHREAD_MUTEX_INITIALIZER, lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int workers;
static atomic_uint generation;

static struct {
  void (*task)(void *, int);
  void *user;
  int tasks;
  atomic_int next;
} job;
static atomic_int joined, open_places;

static void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

static void drain(void) {
  for (int i; (i = atomic_fetch_add(&job.next, 1)) < job.tasks;) job.task(job.user, i);
}

static void *work(void *unused) {
  (void)unused;
  unsigned seen = 0;
  for (;;) {
    for (int i = 0; i < SPINS && atomic_load(&generation) == seen; i++) relax();
    pthread_mutex_lock(&lock);
    while (atomic_load(&generation) == seen) pthread_cond_wait(&wake, &lock);
    seen = atomic_load(&generation);
    int joins = atomic_load(&open_places) > 0;
    if (joins) atomic_fetch_sub(&open_places, 1), atomic_fetch_add(&joined, 1);
    pthread_mutex_unlock(&lock);
    if (!joins) continue;
    drain();
    atomic_fetch_sub(&joined, 1);
  }
  return NULL;
}

static void before_fork(void) { pthread_mutex_lock(&busy), pthread_mutex_lock(&lock); }
static void in_parent(void) { pthread_mutex_unlock(&lock), pthread_mutex_unlock(&busy); }
static void in_child(void) { /* threads do not survive a fork */
  workers = 0;
  pthread_cond_t fresh = PTHREAD_COND_INITIALIZER;
  wake = fresh;
  pthread_mutex_unlock(&lock), pthread_mutex_unlock(&busy);
}

static void prepare(void) { pthread_atfork(before_fork, in_parent, in_child); }

static void start_workers(int wanted) {
  if (wanted > MOST_WORKERS) wanted = MOST_WORKERS;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  for (pthread_t thread; workers < wanted; workers++)
    if (pthread_create(&thread, &attributes, work, NULL)) break;
  pthread_attr_destroy(&attributes);
}

void ergo_pool_run(int threads, int tasks, void (*task)(void *user, int index), void *user) {
  pthread_once(&once, prepare);
  if (threads < 2 || tasks < 2 || pthread_mutex_trylock(&busy)) {
    for (int i = 0; i < tasks; i++) task(user, i);
    return;
  }
  start_workers(threads - 1);
  pthread_mutex_lock(&lock);
  job.task = task, job.user = user, job.tasks = tasks;
  atomic_store(&job.next, 0);
  atomic_store(&open_places, (threads < tasks ? threads : tasks) - 1);
  atomic_fetch_add(&generation, 1);
  pthread_cond_broadcast(&wake);
  pthread_mutex_unlock(&lock);
  drain();
  pthread_mutex_lock(&lock);
  atomic_store(&open_places, 0); /* who has not come by now is not waited for */
  pthread_mutex_unlock(&lock);
  for (int i = 0; atomic_load(&joined); i++) i < SPINS ? relax() : (void)sched_yield();
  pthread_mutex_unlock(&busy);
}
