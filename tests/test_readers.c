/* test_readers.c - what must be true of the threads that read requests: what is posted first is begun first; as much waits as may, what is
 * new beyond it is refused, and what goes on with something never is; all that was taken is done. */
#include "serve/readers.h"

#include <pthread.h>

#include "test.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool open_now;
static int begun, order[16];

static void wait_at_the_door(void *arg) {
  pthread_mutex_lock(&lock);
  order[begun++] = *(int *)arg;
  pthread_cond_broadcast(&changed);
  while (!open_now) pthread_cond_wait(&changed, &lock);
  pthread_mutex_unlock(&lock);
}

static void until_begun(int n) {
  pthread_mutex_lock(&lock);
  while (begun < n) pthread_cond_wait(&changed, &lock);
  pthread_mutex_unlock(&lock);
}

static void open_the_door(void) {
  pthread_mutex_lock(&lock);
  open_now = true;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
}

static void what_waits_has_a_limit(void) {
  enum { WAITING = 3 };
  int number[8] = {0, 1, 2, 3, 4, 5, 6, 7};
  bool full = true;
  mn_readers *r = NULL;
  CHECK_OK(mn_readers_new(1, WAITING, &r));
  if (!r) return;
  CHECK(mn_readers_ask(r, wait_at_the_door, &number[0], &full) == MN_OK && !full, "the first");
  until_begun(1); /* its reader has it: it waits no more */
  for (int i = 1; i <= WAITING; i++) CHECK(mn_readers_ask(r, wait_at_the_door, &number[i], &full) == MN_OK && !full, "%d waits", i);
  CHECK(mn_readers_ask(r, wait_at_the_door, &number[7], &full) == MN_ERR_MEMORY && full, "one too many");
  CHECK(mn_readers_count(r) == WAITING + 1, "%d", mn_readers_count(r));
  CHECK_OK(mn_readers_post(r, wait_at_the_door, &number[4])); /* goes on with something */
  open_the_door();
  until_begun(5);
  CHECK(mn_readers_ask(r, wait_at_the_door, &number[5], &full) == MN_OK && !full, "there is room again");
  mn_readers_free(r);
  CHECK(begun == 6, "%d are done", begun);
  for (int i = 0; i < begun; i++) CHECK(order[i] == i, "%d is the %dth", order[i], i);
}

int main(void) {
  RUN(what_waits_has_a_limit);
  return test_end();
}
