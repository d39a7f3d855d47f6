/* test_inspect_synapses.c - what `mneme inspect MODEL --synapses FILE` says is what the model does: rho is that of a stream, |P| that of its
 * session, how full P is follows from the norm where nothing is clipped, delta and mu are the parameters. What has no synapses is refused. */
#include "base/file.h"
#include "checkpoint/bundle.h"
#include "format/safetensors.h"
#include "program.h"
#include "run/session.h"
#include "test.h"

#include <jansson.h>
#include <math.h>

enum { T = 40, H = 2, HEAD = 4, CHUNK = 8 };
#define TRAIN                                                                                                                              \
  "train m.yaml --quiet --threads 1 --set train.steps=2 --set train.batch=2 --set train.seq_len=32 --set train.validate_every=0 "
static const char recipe[] = "name: m\nseed: 3\ntokenizer: {type: bytes}\ndata: {files: [text.txt]}\n"
                             "model: {d_model: 8, layers: 2, block: {mixer: {type: gla, heads: 2}, channel: swiglu}}\n"
                             "train: {optimizer: {type: adamw, lr: 1e-2}}\n";

static json_t *inspect(const char *model, int tokens) {
  CHECK(sh(MNEME "inspect %s --synapses text.txt --seq-len %d --threads 1 --json 2>/dev/null", model, tokens) == 0, "%s", out);
  json_t *doc = json_loads(out, 0, NULL);
  CHECK(doc && json_integer_value(json_object_get(doc, "tokens")) == tokens, "%s", out);
  return doc;
}
static const json_t *head_of(const json_t *doc, int layer, int h) {
  const json_t *l = json_array_get(json_object_get(doc, "synapses"), (size_t)layer);
  return json_array_get(json_object_get(l, "heads"), (size_t)h);
}
static double of(const json_t *head, const char *key) {
  const json_t *v = json_object_get(head, key);
  return json_is_number(v) ? json_number_value(v) : (double)NAN;
}

static void prepare(void) {
  char text[4 * T];
  for (size_t i = 0; i + 1 < sizeof text; i++) text[i] = (char)('a' + i * i % 23);
  text[sizeof text - 1] = '\n';
  CHECK_OK(mn_file_write("text.txt", text, sizeof text));
  CHECK_OK(mn_file_write("m.yaml", recipe, sizeof recipe - 1));
  static const char mixer[] = "model.block.mixer={type: synaptic, heads: 2, chunk: 8, base: {type: gla, heads: 2}";
  CHECK(sh(MNEME TRAIN "--out free --set '%s, p_max: 1e6}' 2>&1", mixer) == 0, "%s", out);
  CHECK(sh(MNEME TRAIN "--out tight --set '%s, p_max: 0.01}' 2>&1", mixer) == 0, "%s", out);
  CHECK(sh(MNEME TRAIN "--out hebb --set '%s, mode: hebb}' 2>&1", mixer) == 0, "%s", out);
  CHECK(sh(MNEME TRAIN "--out none 2>&1") == 0, "%s", out);
}

/* The same text through a session, token by token: mean of rho's report, and the norms of the states. */
static void a_session_says_the_same(const char *dir) {
  mn_bundle b = {0};
  mn_session *s = NULL;
  mn_ids ids = {0};
  char *text = NULL;
  size_t n;
  double rho[2] = {0}, norm[2] = {0};
  CHECK_OK(mn_bundle_open(dir, "cpu", 1, &b));
  CHECK(b.speech.n_eos == 1 && b.speech.eos[0] == mn_tokenizer_eos(b.tokenizer), "%d tokens end an answer", b.speech.n_eos);
  CHECK_OK(mn_file_read("text.txt", SIZE_MAX, &text, &n));
  CHECK_OK(mn_tokenizer_encode(b.tokenizer, text, n, 0, &ids));
  CHECK_OK(mn_session_new(b.model, b.params, &(mn_session_config){.prefill = 1}, &s));
  CHECK_OK(mn_session_report(s, "rho"));
  for (int64_t t = 0; t < T; t++) {
    CHECK_OK(mn_session_feed(s, ids.data + t, 1, NULL));
    for (int l = 0; l < 2; l++) rho[l] += (double)mn_session_report_values(s, l)[0] / T;
  }
  for (int i = 0; i < mn_session_count(s); i++) {
    mn_session_tensor x;
    CHECK_OK(mn_session_at(s, i, &x));
    if (!strcmp(x.info.name, "layers.0.mixer.synaptic.P")) norm[0] = x.norm;
    if (!strcmp(x.info.name, "layers.1.mixer.synaptic.P")) norm[1] = x.norm;
  }
  json_t *doc = inspect(dir, T);
  for (int l = 0; l < 2; l++) {
    double mean = 0, squares = 0;
    for (int h = 0; h < H; h++) {
      mean += of(head_of(doc, l, h), "rho_mean") / H;
      squares += of(head_of(doc, l, h), "norm") * of(head_of(doc, l, h), "norm");
    }
    CHECK(fabs(mean - rho[l]) < 1e-5, "%s, layer %d: rho %g, in a stream %g", dir, l, mean, rho[l]);
    CHECK(norm[l] > 0 && fabs(sqrt(squares) / norm[l] - 1) < 1e-4, "%s, layer %d: |P| %g, of the session %g", dir, l, sqrt(squares),
          norm[l]);
  }
  json_decref(doc);
  mn_session_free(s);
  mn_bundle_close(&b);
  mn_ids_free(&ids);
  free(text);
}
static void rho_and_the_norm_are_those_of_a_stream(void) {
  a_session_says_the_same("free");
  a_session_says_the_same("tight");
}

static void tenths_hold_all_tokens(void) {
  json_t *doc = inspect("free", T);
  for (int i = 0; i < 2 * H; i++) {
    const json_t *head = head_of(doc, i / H, i % H), *tenths = json_object_get(head, "rho_tenths");
    double all = 0, low = 0, high = 0;
    for (size_t k = 0; k < json_array_size(tenths); k++) {
      const double part = json_number_value(json_array_get(tenths, k));
      all += part, low += part * (double)k / 10, high += part * (double)(k + 1) / 10;
    }
    CHECK(fabs(all - 1) < 1e-9, "tenths hold %g", all);
    CHECK(low <= of(head, "rho_mean") && of(head, "rho_mean") <= high, "a mean of %g in %g to %g", of(head, "rho_mean"), low, high);
    CHECK(of(head, "rho_std") > 0, "rho does not vary: %g", of(head, "rho_std"));
  }
  json_decref(doc);
}

/* pi = p_max sqrt(d): nothing reaches it in one, everything in the other. */
static void homeostasis_is_seen(void) {
  json_t *doc = inspect("free", CHUNK), *tight = inspect("tight", T);
  const double pi = 1e6 * sqrt(HEAD);
  for (int i = 0; i < 2 * H; i++) {
    const json_t *a = head_of(doc, i / H, i % H), *b = head_of(tight, i / H, i % H);
    CHECK(of(a, "clipped") == 0 && fabs(of(a, "largest_over_most") * pi / of(a, "norm") - 1) < 1e-5, "%g of %g", of(a, "norm"), pi);
    CHECK(of(b, "clipped") == 1 && of(b, "largest_over_most") > 1, "clipped %g", of(b, "clipped"));
    CHECK(fabs(of(b, "norm") / (0.01 * sqrt(HEAD)) - 1) < 1e-4, "|P| %g", of(b, "norm"));
  }
  json_decref(doc);
  json_decref(tight);
}

static void parameters_stand_beside_it(void) {
  mn_bundle b = {0};
  CHECK_OK(mn_bundle_open("free", "cpu", 1, &b));
  const int at = mn_params_find(b.params, "layers.1.mixer.synaptic.delta_logit");
  void *host = NULL;
  CHECK(at >= 0, "no delta_logit");
  CHECK_OK(mn_params_on_host(b.params, at, &host));
  json_t *doc = inspect("free", T), *hebb = inspect("hebb", T);
  for (int h = 0; h < H && host; h++) {
    const double want = 1 / (1 + exp(-(double)((const float *)host)[h]));
    CHECK(fabs(of(head_of(doc, 1, h), "delta") - want) < 1e-9, "delta %g, not %g", of(head_of(doc, 1, h), "delta"), want);
    CHECK(of(head_of(hebb, 0, h), "rho_mean") == 0.5 && of(head_of(hebb, 0, h), "rho_std") == 0, "of hebb rho is 1/2");
    CHECK(json_is_null(json_object_get(head_of(hebb, 0, h), "beta_res")), "hebb has a beta");
  }
  CHECK(sh(MNEME "inspect hebb --synapses text.txt 2>&1") == 0 && strstr(out, "idle"), "%s", out);
  CHECK(sh(MNEME "inspect free --synapses text.txt 2>&1") == 0 && !strstr(out, "idle"), "%s", out);
  json_decref(doc);
  json_decref(hebb);
  free(host);
  mn_bundle_close(&b);
}

static void what_cannot_be_asked_is_refused(void) {
  static const struct {
    const char *command, *says;
  } cases[] = {{"inspect none --synapses text.txt", "nothing in none changes while it reads"},
               {"inspect m.yaml --synapses text.txt", "needs a trained model"},
               {"inspect free --synapses text.txt --plan", "--plan has no effect"},
               {"inspect free --synapses text.txt --set model.layers=1", "--set changes a recipe"},
               {"inspect free --synapses empty.txt", "empty.txt has no text in it"}};
  CHECK_OK(mn_file_write("empty.txt", "", 0));
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    CHECK(sh(MNEME "%s 2>&1", cases[i].command) == 2, "%s: %s", cases[i].command, out);
    CHECK(strstr(out, cases[i].says), "%s: %s", cases[i].command, out);
  }
  CHECK(sh(MNEME "inspect free --synapses nowhere.txt 2>&1") != 0 && strstr(out, "nowhere.txt"), "%s", out);
}

int main(void) {
  setenv("MNEME_LOG", "error", 1);
  RUN(prepare);
  RUN(rho_and_the_norm_are_those_of_a_stream);
  RUN(tenths_hold_all_tokens);
  RUN(homeostasis_is_seen);
  RUN(parameters_stand_beside_it);
  RUN(what_cannot_be_asked_is_refused);
  return test_end();
}
