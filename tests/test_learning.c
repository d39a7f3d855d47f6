/* Objectives that others' tests only match to their data, learned by tiny models on tiny data: classes of sounds, the value of nested
 * expressions, what an encoder's source is in other words. Each must end well below what guessing costs. */
#include "train_helpers.h"

/* The mean loss of the last ten steps; NAN where the training is refused. */
static double learned(const char *recipe) {
  mn_recipe *r = NULL;
  mn_trainer *t = NULL;
  double sum = 0;
  const char *path = test_path("learning.yaml");
  CHECK_OK(mn_file_write(path, recipe, strlen(recipe)));
  mn_status status = mn_recipe_read(path, NULL, 0, &r);
  if (status == MN_OK) status = mn_trainer_new(r, 1, NULL, NULL, &t);
  for (int64_t i = 0; status == MN_OK && i < r->train.steps; i++) {
    mn_step_result s = {0};
    status = mn_trainer_step(t, &s);
    if (i >= r->train.steps - 10) sum += s.loss / 10;
  }
  CHECK_OK(status);
  mn_trainer_free(t);
  mn_recipe_free(r);
  return status == MN_OK ? sum : (double)NAN;
}

/* A sound of 8,000 samples a second: tones of `hz` in some noise. */
static void write_sound(const char *name, double hz, uint64_t seed) {
  enum { SAMPLES = 1600 };
  static int16_t x[SAMPLES];
  static uint8_t file[44 + sizeof x];
  const uint32_t rate = 8000, bytes = sizeof x, sizes[] = {36 + bytes, rate * 2};
  const double begin = 7 * mn_random_uniform(seed, 0, 0);
  for (int i = 0; i < SAMPLES; i++)
    x[i] = (int16_t)(6000 * sin(begin + 2 * acos(-1) * hz * i / rate) + 2000 * mn_random_normal(seed, 1, (uint64_t)i));
  memcpy(file, "RIFF....WAVEfmt \x10\0\0\0", 20);
  memcpy(file + 4, &sizes[0], 4);
  file[20] = 1, file[22] = 1, file[34] = 16, file[32] = 2;
  memcpy(file + 24, &rate, 4);
  memcpy(file + 28, &sizes[1], 4);
  memcpy(file + 36, "data", 4);
  memcpy(file + 40, &bytes, 4);
  memcpy(file + 44, x, sizeof x);
  CHECK_OK(mn_file_write(test_path(name), (const char *)file, sizeof file));
}

static void classes_of_sounds_are_learned(void) {
  char recipe[1500], name[64];
  for (int i = 0; i < 48; i++) {
    snprintf(name, sizeof name, "%s_%d.wav", i % 3 == 0 ? "low" : i % 3 == 1 ? "middle" : "high", i);
    write_sound(name, i % 3 == 0 ? 300 : i % 3 == 1 ? 900 : 2400, (uint64_t)i);
  }
  snprintf(recipe, sizeof recipe,
           "name: sounds\nseed: 1\ndata: {type: audio, files: ['%s'], frames: 16, bands: 12, validation: 0.1}\nmodel: {type: classifier, "
           "channels: 12, num_classes: 3, d_model: 16, layers: 1, block: {mixer: {type: attention, heads: 2, causal: false}, hidden: 32}}\n"
           "objective: {type: classification}\ntrain: {steps: 60, batch: 8, optimizer: {lr: 1e-2}}\n",
           test_path("*.wav"));
  const double loss = learned(recipe);
  CHECK(loss < 0.1 * log(3), "%g; guessing costs %g", loss, log(3));
}

static void values_of_expressions_are_learned(void) {
  const double loss = learned(
      "name: listops\nseed: 1\ndata: {task: {name: listops_mini, max_depth: 2, max_args: 3, min_length: 3, max_length: 24}}\nmodel: {type: "
      "classifier, num_classes: 10, d_model: 32, layers: 2, positions: learned, max_positions: 24, block: {mixer: {type: attention, heads: "
      "2, causal: false, rope: false}, hidden: 64}}\nobjective: {type: classification}\ntrain: {steps: 250, batch: 32, optimizer: {lr: "
      "3e-3}}\n");
  CHECK(loss < 0.6 * log(10), "%g; guessing costs %g", loss, log(10));
}

/* What is said without looking at the source is the law of its letters; looking makes it say the source's. */
static void a_source_is_put_in_other_words(void) {
  double loss[2];
  for (int blind = 0; blind < 2; blind++) {
    char recipe[1500];
    snprintf(
        recipe, sizeof recipe,
        "name: words\nseed: 1\ntokenizer: {type: bytes}\ndata: {type: pairs, task: {name: number_words, limit: 1000}, source_len: 40, "
        "target_len: 48}\nmodel: {type: encoder_decoder, d_model: 32, max_source: 40, layers: 1, block: {mixer: {type: attention, heads: "
        "2, max_context: 48}, cross: %s, hidden: 64}, encoder: {layers: 1, block: {mixer: {type: attention, heads: 2, causal: false}, "
        "hidden: 64}}}\nobjective: {type: next_token}\ntrain: {steps: 600, batch: 16, optimizer: {lr: 5e-3}}\n",
        blind ? "none" : "{heads: 2}");
    loss[blind] = learned(recipe);
  }
  CHECK(loss[0] < 0.3 * loss[1], "%g nats a byte with the source, %g without", loss[0], loss[1]);
}

int main(void) {
  test_setup("learning");
  RUN(classes_of_sounds_are_learned);
  RUN(values_of_expressions_are_learned);
  RUN(a_source_is_put_in_other_words);
  test_cleanup();
  return test_end();
}
