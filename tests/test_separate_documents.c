/* What must be true where each document is alone: no row crosses a document's end, and an epoch asks for every token but the first
 * of every document once; a batch is a function of its step alone; a batch of cut rows is the documents, each alone: loss and
 * gradients where rows are shuffled, and where state is carried from row to row. */
#include <math.h>
#include <stdlib.h>

#include "source/data.h"
#include "train/trainer_internal.h"
#include "train_helpers.h"

enum { DOCUMENTS = 6, T = 16 };
static const int bytes_of[DOCUMENTS] = {9, T, 1, 40, T + 1, 3 * T}; /* the end token behind each is asked for too */
static char text[DOCUMENTS][3 * T + 1];
static const char *path_of[DOCUMENTS];

/* Every place of every document holds a letter pair of its own, so that what is read tells where it stands. */
static void write_documents(void) {
  static char paths[DOCUMENTS][600];
  for (int d = 0, k = 0; d < DOCUMENTS; d++) {
    for (int i = 0; i < bytes_of[d]; i++, k++) text[d][i] = (char)(33 + (7 * k + k / 90 * 11) % 90);
    snprintf(paths[d], sizeof paths[d], "%s/d%d.txt", test_dir, d);
    path_of[d] = paths[d];
    CHECK_OK(mn_file_write(path_of[d], text[d], (size_t)bytes_of[d]));
  }
}

static mn_recipe *recipe_of(const char *mixer, const int *documents, int n, int batch, bool carried) {
  char mix[300], rows[40];
  mn_text files = {0};
  mn_text_add(&files, "data.files=[");
  for (int i = 0; i < n; i++) mn_text_addf(&files, "%s'%s'", i ? ", " : "", path_of[documents[i]]);
  mn_text_add(&files, "]");
  snprintf(mix, sizeof mix, "model.block.mixer=%s", mixer);
  snprintf(rows, sizeof rows, "train.batch=%d", batch);
  /* parameters stand still, and the first moment is the step's gradient */
  mn_recipe *r =
      RECIPE(mix, rows, files.data, "data.validation=0", "data.documents=separate", "train.validate_every=0", "train.seq_len=16",
             "train.clip_norm=0", "train.optimizer={lr: 0, betas: [0, 0.9]}", "model.layers=1",
             carried ? "data.order=sequential" : "data.order=shuffled", carried ? "train.carry_state=true" : "train.carry_state=false");
  mn_text_free(&files);
  return r;
}

static mn_trainer *trainer_of(mn_recipe *r) {
  mn_trainer *t = NULL;
  CHECK_OK(mn_trainer_new(r, 1, NULL, NULL, &t));
  if (!t) exit(test_end()); /* nothing that follows could be compared */
  return t;
}

static void trainer_free(mn_trainer *t, mn_recipe *r) {
  mn_trainer_free(t);
  mn_recipe_free(r);
}

static int64_t asked(const mn_trainer *t) {
  const int32_t *target = mn_batch_get(&t->batches[0], "target");
  int64_t n = 0;
  for (int64_t i = 0; i < t->batches[0].B * T; i++) n += target[i] != MN_IGNORE;
  return n;
}

/* ---- rows ---- */

/* One row against the documents: which one it is of, and where it begins in it; -1: it is of none. */
static int document_of(const int32_t *in, const int32_t *out, int n, int *at) {
  for (int d = 0; d < DOCUMENTS; d++)
    for (*at = 0; *at < bytes_of[d]; *at += T) {
      int i = 0;
      for (; i < n && *at + i < bytes_of[d]; i++) {
        const int next = *at + i + 1 < bytes_of[d] ? (unsigned char)text[d][*at + i + 1] : 256;
        if (in[i] != (unsigned char)text[d][*at + i] || out[i] != next) break;
      }
      if (i == n && n == (bytes_of[d] - *at < T ? bytes_of[d] - *at : T)) return d;
    }
  return -1;
}

static void rows_of(mn_order order, int split) {
  enum { B = 3, ROWS = 1 + 1 + 1 + 3 + 2 + 3 };
  mn_tokenizer *tok = NULL;
  mn_corpus *c = NULL;
  mn_data_config config;
  CHECK_OK(mn_tokenizer_bytes((const char *const[]){"<|endoftext|>"}, 1, &tok));
  mn_config_defaults(mn_data_fields, &config);
  config.files = config.validation_files = (mn_strings){path_of, DOCUMENTS};
  config.documents = MN_DOCUMENTS_SEPARATE;
  config.order = order;
  CHECK_OK(mn_corpus_open(&config, tok, NULL, &c));
  const int64_t steps = mn_corpus_steps(c, split, B, T);
  CHECK(steps == (order == MN_ORDER_SEQUENTIAL ? ROWS / B : (ROWS + B - 1) / B), "%lld steps", (long long)steps);
  CHECK(mn_corpus_longest(c, split) == 3 * T, "the longest has %lld tokens", (long long)mn_corpus_longest(c, split));
  int32_t in[B * T], out[B * T], again[B * T], target[B * T];
  bool reset[B];
  int seen[DOCUMENTS][3] = {{0}}, before[B][2] = {{0}}, n_seen = 0;
  for (int64_t step = 0; step < steps; step++) {
    CHECK_OK(mn_corpus_batch(c, split, step, B, T, in, out, reset));
    CHECK_OK(mn_corpus_batch(c, split, steps - 1 - step, B, T, again, target, NULL));
    CHECK_OK(mn_corpus_batch(c, split, step, B, T, again, target, NULL));
    CHECK(!memcmp(in, again, sizeof in) && !memcmp(out, target, sizeof out), "step %lld is not the same again", (long long)step);
    for (int b = 0; b < B; b++) {
      int n = 0, at, d;
      while (n < T && out[b * T + n] != MN_IGNORE) n++;
      for (int i = n; i < T; i++) CHECK(!in[b * T + i] && out[b * T + i] == MN_IGNORE, "something stands behind the row's end");
      if (!n) continue; /* a last batch may be short */
      d = document_of(in + b * T, out + b * T, n, &at);
      CHECK(d >= 0, "step %lld, row %d is of no document", (long long)step, b);
      if (d < 0) continue;
      if (n_seen++ < ROWS) seen[d][at / T]++;
      const bool goes_on = order == MN_ORDER_SEQUENTIAL && step > 0 && at > 0;
      CHECK(reset[b] == !goes_on, "step %lld, row %d: document %d at %d", (long long)step, b, d, at);
      CHECK(!goes_on || (before[b][0] == d && before[b][1] == at - T), "row %d does not go on", b);
      before[b][0] = d, before[b][1] = at;
    }
  }
  for (int d = 0; d < DOCUMENTS && order == MN_ORDER_SHUFFLED; d++)
    for (int i = 0; i < (bytes_of[d] + T - 1) / T; i++) CHECK(seen[d][i] > 0, "row %d of document %d is not read", i, d);
  if (order == MN_ORDER_SEQUENTIAL) CHECK(n_seen == ROWS / B * B, "%d rows", n_seen);
  mn_corpus_close(c);
  mn_tokenizer_free(tok);
}

static void test_rows_end_with_their_document(void) {
  for (int order = MN_ORDER_SHUFFLED; order <= MN_ORDER_SEQUENTIAL; order++)
    for (int split = MN_SPLIT_TRAIN; split <= MN_SPLIT_VALIDATION; split++) rows_of((mn_order)order, split);
}

static void test_what_is_refused(void) {
  mn_corpus *c = NULL;
  mn_tokenizer *tok = NULL;
  mn_data_config config;
  CHECK_OK(mn_tokenizer_bytes(NULL, 0, &tok));
  mn_config_defaults(mn_data_fields, &config);
  config.files = (mn_strings){path_of, DOCUMENTS};
  config.documents = MN_DOCUMENTS_SEPARATE;
  CHECK(mn_corpus_open(&config, tok, NULL, &c) == MN_ERR_CONFIG && strstr(mn_message(), "end token"), "%s", mn_message());
  mn_tokenizer_free(tok);
  CHECK_OK(mn_tokenizer_bytes((const char *const[]){"<|endoftext|>"}, 1, &tok));
  config.validation = 0;
  config.order = MN_ORDER_SEQUENTIAL;
  CHECK_OK(mn_corpus_open(&config, tok, NULL, &c));
  CHECK(mn_corpus_check(c, MN_SPLIT_TRAIN, 12, T) == MN_ERR_CONFIG && strstr(mn_message(), "11 rows"), "%s", mn_message());
  CHECK(mn_corpus_check(c, MN_SPLIT_VALIDATION, 1, T) == MN_ERR_CONFIG, "there is no validation text");
  char hash[MN_HASH_HEX], other[MN_HASH_HEX];
  mn_corpus_hash(c, hash);
  mn_corpus_close(c);
  config.documents = MN_DOCUMENTS_CONTINUE;
  CHECK_OK(mn_corpus_open(&config, tok, NULL, &c));
  mn_corpus_hash(c, other);
  CHECK(strcmp(hash, other) != 0, "a run would go on with rows of another kind");
  mn_corpus_close(c);
  mn_tokenizer_free(tok);
}

/* ---- training ---- */

static const char *const mixers[] = {"{type: attention, heads: 2}", "{type: gated_deltanet, heads: 2}",
                                     "{type: titans_lmm, heads: 2, memory_net: linear, chunk: 8}"};
enum { N = sizeof mixers / sizeof *mixers };

/* The loss and the gradient of rows that are one batch are the mean over the tokens of what each is alone. */
static void test_shuffled_rows_are_documents_alone(void) {
  static const int short_ones[] = {0, 1, 2};
  for (int c = 0; c < N; c++) {
    mn_recipe *r = recipe_of(mixers[c], short_ones, 3, 3, false), *one[3];
    mn_trainer *all = trainer_of(r), *alone[3];
    mn_step_result s = {0};
    CHECK_OK(mn_trainer_step(all, &s));
    CHECK(asked(all) == 9 + T + 1, "%lld tokens are asked for", (long long)asked(all));
    double loss = 0, part[3];
    for (int d = 0; d < 3; d++) {
      mn_step_result x = {0};
      alone[d] = trainer_of(one[d] = recipe_of(mixers[c], short_ones + d, 1, 1, false));
      CHECK_OK(mn_trainer_step(alone[d], &x));
      part[d] = (double)asked(alone[d]) / (double)asked(all);
      loss += part[d] * x.loss;
    }
    CHECK(fabs(loss - s.loss) < 1e-5 * s.loss, "%s: loss %.8g, of the documents alone %.8g", mixers[c], s.loss, loss);
    double total = 0;
    for (int i = 0; i < all->params->n; i++) {
      const float *g = all->optimizer->m[i];
      double most = 0, worst = 0;
      for (int64_t k = 0; k < mn_shape_count(&all->params->info[i].shape); k++) {
        double want = 0;
        for (int d = 0; d < 3; d++) want += part[d] * (double)((const float *)alone[d]->optimizer->m[i])[k];
        most = fmax(most, fabs(want)), worst = fmax(worst, fabs(want - (double)g[k]));
      }
      total += most;
      CHECK(worst <= 2e-5 * most + 1e-7, "%s: the gradient of %s is off by %g of %g", mixers[c], all->params->info[i].name, worst, most);
    }
    CHECK(total > 0, "%s: there are no gradients to compare", mixers[c]);
    for (int d = 0; d < 3; d++) trainer_free(alone[d], one[d]);
    trainer_free(all, r);
  }
}

/* Behind another document, the steps of a stream are bit by bit those of the document alone. */
static void test_carried_streams_are_documents_alone(void) {
  static const int both[] = {3, 5};
  for (int c = 0; c < N; c++) {
    mn_recipe *r = recipe_of(mixers[c], both, 2, 1, true), *r2 = recipe_of(mixers[c], both + 1, 1, 1, true);
    mn_trainer *all = trainer_of(r), *alone = trainer_of(r2);
    mn_step_result s = {0}, x = {0};
    double loss[3], size = 0;
    for (int i = 0; i < 3; i++) { /* the first document's 40 tokens: two whole rows and one of 8 */
      CHECK_OK(mn_trainer_step(all, &s));
      CHECK(asked(all) == (i < 2 ? T : 8), "step %d asks for %lld tokens", i, (long long)asked(all));
    }
    for (int i = 0; i < 3; i++) {
      CHECK_OK(mn_trainer_step(all, &s));
      CHECK_OK(mn_trainer_step(alone, &x));
      CHECK(s.loss == x.loss, "%s, row %d: loss %.9g, alone %.9g", mixers[c], i, s.loss, x.loss);
      loss[i] = x.loss;
      size += fabs((double)*(const float *)all->optimizer->m[all->params->n - 1]);
      for (int k = 0; k < all->params->n; k++)
        CHECK(!memcmp(all->optimizer->m[k], alone->optimizer->m[k], (size_t)mn_shape_count(&all->params->info[k].shape) * sizeof(float)),
              "%s, row %d: the gradient of %s is not the document's", mixers[c], i, all->params->info[k].name);
    }
    CHECK(size > 0, "%s: there are no gradients to compare", mixers[c]);
    trainer_free(alone, r2);
    /* and state is carried within it: without, its second row is another one */
    alone = trainer_of(r2 = recipe_of(mixers[c], both + 1, 1, 3, false));
    CHECK_OK(mn_trainer_step(alone, &x));
    CHECK(fabs(x.loss - (loss[0] + loss[1] + loss[2]) / 3) > 1e-7, "%s: nothing is carried", mixers[c]);
    trainer_free(alone, r2);
    trainer_free(all, r);
  }
}

/* ---- evaluation ---- */

static mn_evaluation validated(const char *mixer, const int *documents, int n, int batch, bool carried) {
  mn_evaluation e = {0};
  mn_recipe *r = recipe_of(mixer, documents, n, batch, carried);
  static const char *files[DOCUMENTS];
  for (int i = 0; i < n; i++) files[i] = path_of[documents[i]];
  r->data.validation_files = (mn_strings){files, n};
  ((mn_data_config *)r->source.config)->validation_files = r->data.validation_files;
  mn_trainer *t = trainer_of(r);
  CHECK_OK(mn_trainer_validate(t, NULL, &e));
  trainer_free(t, r);
  return e;
}

static void test_evaluation_is_of_documents_alone(void) {
  static const int all[] = {3, 5, 0, 4};
  for (int c = 0; c < N; c++)
    for (int carried = 0; carried < 2; carried++) {
      mn_evaluation e = validated(mixers[c], all, 4, carried ? 1 : 4, carried);
      double sum = 0;
      for (int d = 0; d < 4; d++) {
        mn_evaluation one = validated(mixers[c], all + d, 1, 1, carried);
        CHECK(one.tokens == bytes_of[all[d]], "document %d has %lld tokens", d, (long long)one.tokens);
        sum += one.loss * (double)one.tokens;
      }
      CHECK(e.tokens == 40 + 3 * T + 9 + T + 1, "%lld tokens", (long long)e.tokens);
      CHECK(fabs(sum - e.loss * (double)e.tokens) < 1e-6 * sum, "%s: %.9g nats, alone %.9g", mixers[c], e.loss * (double)e.tokens, sum);
    }
}

int main(void) {
  test_setup("separate-documents");
  write_documents();
  RUN(test_rows_end_with_their_document);
  RUN(test_what_is_refused);
  RUN(test_shuffled_rows_are_documents_alone);
  RUN(test_carried_streams_are_documents_alone);
  RUN(test_evaluation_is_of_documents_alone);
  test_cleanup();
  return test_end();
}
