/* test_parallel.c - what must be true of mixers side by side, in order: golden vectors; a stream cut anywhere is the stream; gradients;
 * bf16; it says the sum of what each says alone; a recipe is written as it was read; what a recipe may not ask for. */
#include "format/json.h"
#include "mixer_suite.h"

static const char *const forms[] = {
    "{\"type\": \"parallel\", \"mixers\": [{\"type\": \"attention\", \"heads\": 2}, {\"type\": \"mamba2\", \"head_dim\": 4, \"state\": 3}]}",
    "{\"type\": \"parallel\", \"mixers\": [{\"type\": \"short_conv\"}, {\"type\": \"retnet\", \"heads\": 2}, {\"type\": \"short_conv\", \"conv\": "
    "2}]}",
};
enum { FORMS = sizeof forms / sizeof *forms };

static void golden_vectors(void) {
  static const char *const files[] = {"parallel/parallel"};
  mc_golden_files(1, files, 2e-5);
}

static void a_stream_cut_anywhere_is_the_stream(void) { mc_cut_anywhere(FORMS, forms); }

static void gradients_agree_with_differences(void) { ms_gradients(FORMS, forms, 0, 1e-6); }

static void bf16_is_close(void) { ms_bf16(FORMS, forms, 2e-2); }

/* Two of one kind with equal parameters say twice what one says. */
static void it_says_the_sum(void) {
  enum { T = 20, D = 8 };
  static const char one[] = "{\"type\": \"retnet\", \"heads\": 2}";
  static const char two[] =
      "{\"type\": \"parallel\", \"mixers\": [{\"type\": \"retnet\", \"heads\": 2}, {\"type\": \"retnet\", \"heads\": 2}]}";
  double *x = mc_normal(T * D, 1, 5), y[T * D], z[T * D];
  mc_mixer m, o;
  bool ok = mc_open(&m, one, D, 1, MN_F64, mn_backend_ref()) && mc_random_params(&m, 6) &&
            mc_open(&o, two, D, 1, MN_F64, mn_backend_ref()) && mc_random_params(&o, 6);
  for (int i = 0; ok && i < 2 * m.params.n; i++) {
    char name[96];
    const mc_tensor *t = &m.params.t[i / 2];
    snprintf(name, sizeof name, "mixers.%d.%s", i % 2, t->name);
    CHECK(mc_get(&o.params, name) != NULL, "there is no %s", name);
    mc_put(&o.params, name, t->shape, t->x);
  }
  ok = ok && mc_forward(&m, T, x, y, NULL, NULL, NULL) && mc_forward(&o, T, x, z, NULL, NULL, NULL);
  CHECK(ok, "run");
  for (int i = 0; ok && i < T * D; i++) CHECK(fabs(2 * y[i] - z[i]) < 1e-12, "element %d: %g and %g", i, y[i], z[i]);
  mc_close(&m);
  mc_close(&o);
  free(x);
}

static void a_recipe_is_written_as_it_was_read(void) {
  mn_arena *arena = mn_arena_new();
  mn_mixer m, again;
  const mn_value *v = NULL;
  for (int i = 0; i < FORMS; i++) {
    CHECK_OK(mn_json_parse(arena, "recipe.json", forms[i], strlen(forms[i]), &v));
    CHECK_OK(mn_mixer_parse(arena, v, NULL, 8, &m));
    const mn_value *written = mn_mixer_to_value(arena, &m);
    CHECK_OK(mn_mixer_parse(arena, written, NULL, 8, &again));
    CHECK(mn_mixer_parts(&again)->n == mn_mixer_parts(&m)->n, "%d mixers", mn_mixer_parts(&again)->n);
    for (int k = 0; k < mn_mixer_parts(&m)->n; k++)
      CHECK(mn_mixer_parts(&again)->items[k].def == mn_mixer_parts(&m)->items[k].def, "mixer %d of form %d is another", k, i);
  }
  mn_arena_free(arena);
}

static void what_a_recipe_may_not_ask_for(void) {
  mc_refused("type: parallel\n", 16, "mixers|a list of 2 to 16 mixers");
  mc_refused("type: parallel\nmixers: [{type: aaren}]\n", 16, "recipe.yaml:2|mixers|2 to 16");
  mc_refused("type: parallel\nmixers: [{type: aaren}, aaren]\n", 16, "recipe.yaml:2: mixers[1] must be a map such as {type");
  mc_refused("type: parallel\nmixers:\n  - {type: aaren}\n  - {type: mamba2, head_dim: 5}\n", 16, "recipe.yaml:4|head_dim|32");
}

int main(void) {
  RUN(golden_vectors);
  RUN(a_stream_cut_anywhere_is_the_stream);
  RUN(gradients_agree_with_differences);
  RUN(bf16_is_close);
  RUN(it_says_the_sum);
  RUN(a_recipe_is_written_as_it_was_read);
  RUN(what_a_recipe_may_not_ask_for);
  return test_end();
}
