/* train.c - trains a small model that remembers, from a recipe, and writes it to a directory.
 *
 *     train RECIPE.yaml DIR [key=value ...]        e.g. train recipes/quick.yaml runs/quick train.steps=100 */
#include <mneme.h>

#include <stdio.h>

static int failed(const char *what) {
  fprintf(stderr, "%s: %s\n", what, mn_message());
  return 1;
}

int main(int argc, char **argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: %s RECIPE.yaml DIR [key=value ...]\n", argv[0]);
    return 2;
  }
  mn_training *training;
  const char *const *settings = (const char *const *)(argv + 3); /* argv ends with NULL, as settings do */
  if (mn_training_new(argv[1], settings, 0, &training) != MN_OK) return failed(argv[1]);

  double loss = 0, held_out = 0;
  while (mn_training_done(training) < mn_training_steps(training)) {
    if (mn_training_step(training, &loss) != MN_OK) return failed("step");
    long long done = (long long)mn_training_done(training);
    if (done % 10 == 0 || done == mn_training_steps(training)) printf("step %lld: loss %.3f\n", done, loss);
  }
  if (mn_training_validate(training, &held_out) != MN_OK) return failed("validation");
  printf("held-out loss %.3f nats per token\n", held_out);
  if (mn_training_save(training, argv[2]) != MN_OK) return failed(argv[2]);
  mn_training_free(training);
  return 0;
}
