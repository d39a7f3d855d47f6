/* test_serve_embeddings.c - what must be true of texts as vectors, in order: a vector is the mean of what the encoder says of each token, of
 * length 1; it does not depend on what stands beside it; the interface gives it in both encodings, and refuses what is none. */
#include "base/file.h"
#include "format/json.h"
#include "run/embedder.h"
#include "model_fixture.h"
#include "serve_helpers.h"

#define MODEL                                                                                                                                           \
  "{type: encoder, vocab_size: 300, d_model: 16, layers: 2, positions: learned, max_positions: 80, block: {mixer: {type: attention, heads: 2, causal: " \
  "false}, hidden: 16}}"

static void vectors_are_means_of_length_one(void) {
  enum { N = 23, D = 16 };
  static int32_t ids[N][80];
  const int32_t *texts[N];
  int64_t length[N];
  static float together[N][D], alone[D];
  fixture f;
  mn_embedder *e = NULL;
  if (!fixture_open(&f, 5, MODEL)) return;
  CHECK_OK(mn_embedder_new(&(mn_embedder_config){f.model, f.params, MN_F32, MN_POOL_MEAN, 0}, &e));
  CHECK(mn_embedder_width(e) == D && mn_embedder_most(e) == 80, "%lld", (long long)mn_embedder_most(e));
  for (int i = 0; i < N; i++) {
    length[i] = 1 + i * 29 % 80, texts[i] = ids[i];
    for (int t = 0; t < 80; t++) ids[i][t] = (i * 131 + t * t * 7) % 300;
  }
  CHECK_OK(mn_embedder_texts(e, N, texts, length, together[0]));
  for (int i = 0; i < N; i++) {
    double squares = 0, apart = 0;
    CHECK_OK(mn_embedder_texts(e, 1, &texts[i], &length[i], alone));
    for (int d = 0; d < D; d++) squares += (double)alone[d] * alone[d], apart = fmax(apart, fabs((double)alone[d] - together[i][d]));
    CHECK(fabs(squares - 1) < 1e-5 && apart < 2e-6, "text %d: length %g, %g from what it is beside others", i, squares, apart);
  }
  const int64_t none = 0, much = 81;
  CHECK(mn_embedder_texts(e, 1, texts, &none, alone) == MN_ERR_ARG && mn_embedder_texts(e, 1, texts, &much, alone) == MN_ERR_CONFIG, "%s",
        mn_message());
  ids[0][0] = 300;
  CHECK(mn_embedder_texts(e, 1, texts, length, alone) == MN_ERR_ARG, "%s", mn_message());
  mn_embedder_free(e);
  fixture_close(&f);
  if (!fixture_open(
          &f, 5,
          "{type: encoder, channels: 3, d_model: 8, layers: 1, block: {mixer: {type: attention, heads: 2, causal: false}, hidden: 8}}"))
    return;
  CHECK(mn_embedder_new(&(mn_embedder_config){f.model, f.params, MN_F32, MN_POOL_MEAN, 0}, &e) == MN_ERR_CONFIG && !e, "frames");
  fixture_close(&f);
}

/* Of two tokens the mean lies between the first's vector and the last's, and these are two; of one all are the same. No more is read than is
 * said, and a decoder makes none. */
static void one_of_the_vectors_may_count(void) {
  enum { D = 16 };
  static const mn_pooling how[] = {MN_POOL_MEAN, MN_POOL_FIRST, MN_POOL_LAST};
  static const int32_t ids[] = {7, 211, 5};
  const int32_t *text = ids;
  float two[3][D], one[3][D];
  fixture f;
  mn_embedder *e = NULL;
  if (!fixture_open(&f, 5, MODEL)) return;
  for (int i = 0; i < 3; i++) {
    CHECK_OK(mn_embedder_new(&(mn_embedder_config){f.model, f.params, MN_F32, how[i], 2}, &e));
    for (int64_t n = 1; n < 3; n++) CHECK_OK(mn_embedder_texts(e, 1, &text, &n, n == 1 ? one[i] : two[i]));
    CHECK(mn_embedder_texts(e, 1, &text, &(int64_t){3}, one[i]) == MN_ERR_CONFIG && strstr(mn_message(), "reads 2"), "%s", mn_message());
    mn_embedder_free(e);
  }
  double along = 0, a = 0, b = 0, left = 0;
  for (int d = 0; d < D; d++) {
    along += (double)two[1][d] * two[2][d], a += (double)two[0][d] * two[1][d], b += (double)two[0][d] * two[2][d];
    CHECK(one[0][d] == one[1][d] && one[0][d] == one[2][d], "of one token: %g %g %g", (double)one[0][d], (double)one[1][d],
          (double)one[2][d]);
  }
  const double x = (a - along * b) / (1 - along * along), y = (b - along * a) / (1 - along * along);
  for (int d = 0; d < D; d++) left = fmax(left, fabs(two[0][d] - x * two[1][d] - y * two[2][d]));
  CHECK(along < 0.999 && x > 0.05 && y > 0.05 && left < 1e-5, "the mean is %g first and %g last, but for %g; their cosine is %g", x, y,
        left, along);
  fixture_close(&f);
  if (!fixture_open(&f, 5, "{vocab_size: 50, d_model: 8, layers: 1, block: {mixer: {type: attention, heads: 2}, hidden: 8}}")) return;
  CHECK(mn_embedder_new(&(mn_embedder_config){f.model, f.params, MN_F32, MN_POOL_MEAN, 0}, &e) == MN_ERR_CONFIG &&
            strstr(mn_message(), "an encoder of tokens does"),
        "%s", mn_message());
  fixture_close(&f);
}

static const char recipe[] =
    "name: vectors\ntokenizer: {type: bytes}\ndata: {files: [t.txt]}\n"
    "model: {type: encoder, d_model: 16, layers: 1, positions: learned, max_positions: 64, block: {mixer: {type: attention, heads: 2, causal: false}, "
    "hidden: 16}}\n"
    "objective: {type: masked_token}\ntrain: {steps: 3, batch: 2, seq_len: 32}\n";

static float numbers[2][16];
static int read_vectors(void) { /* of the reply */
  mn_arena *arena = mn_arena_new();
  const mn_value *v = NULL;
  int n = 0;
  CHECK_OK(mn_json_parse(arena, "reply", http_body(), strlen(http_body()), &v));
  for (; n < 2; n++) {
    const mn_value *list = mn_value_find(v, n ? "data.1.embedding" : "data.0.embedding");
    if (!list || list->kind != MN_LIST) break;
    for (size_t d = 0; d < list->count && d < 16; d++) {
      double x = 0;
      mn_value_number(list->as.items[d], &x);
      numbers[n][d] = (float)x;
    }
  }
  mn_arena_free(arena);
  return n;
}

static void they_are_served(void) {
  server_process server;
  char text[3000];
  for (int i = 0; i < 2999; i++) text[i] = "the sea \n"[i % 9];
  text[2999] = 0;
  trained("vectors", recipe, "t.txt", text, 2999);
  if (!server_begin(&server, "vectors")) {
    CHECK(false, "no server");
    return;
  }
  CHECK(http_get("/v1/models") == 200 && http_number("dimensions") == 16 && http_number("context_length") == 64, "%s", http_reply);
  CHECK(http_post("/v1/embeddings", "{\"input\": [\"the sea\", \"a ship\"]}") == 200 && read_vectors() == 2 &&
            http_number("total_tokens") == 13,
        "%s", http_reply);
  const float first = numbers[0][0], second = numbers[1][3];
  double squares = 0;
  for (int d = 0; d < 16; d++) squares += (double)numbers[1][d] * numbers[1][d];
  CHECK(fabs(squares - 1) < 1e-5, "%g", squares);
  CHECK(http_post("/v1/embeddings", "{\"input\": \"the sea\", \"user\": \"me\"}") == 200 && read_vectors() == 1 &&
            fabsf(numbers[0][0] - first) < 1e-6f && strstr(http_reply, "Mneme-No-Effect: user"),
        "%s", http_reply);
  CHECK(http_post("/v1/embeddings", "{\"input\": [97, 32, 115, 104, 105, 112]}") == 200 && read_vectors() == 1 &&
            fabsf(numbers[0][3] - second) < 1e-6f,
        "%s", http_reply);
  CHECK(http_post("/v1/embeddings", "{\"input\": \"a ship\", \"dimensions\": 4}") == 200 && read_vectors() == 1, "%s", http_reply);
  squares = 0;
  for (int d = 0; d < 4; d++) squares += (double)numbers[0][d] * numbers[0][d];
  CHECK(fabs(squares - 1) < 1e-5, "%g", squares);
  CHECK(http_post("/v1/embeddings", "{\"input\": \"a\", \"encoding_format\": \"base64\"}") == 200 &&
            strlen(http_text(http_body(), "embedding")) == 88,
        "%s", http_reply);
  static const struct {
    const char *path, *body, *said;
  } all[] = {
      {"/v1/embeddings", "{}", "'input' is missing"},
      {"/v1/embeddings", "{\"input\": \"\"}", "is empty"},
      {"/v1/embeddings", "{\"input\": [\"a\", \"\"]}", "text 1 of the input is empty"},
      {"/v1/embeddings", "{\"input\": [[1, 2], [300]]}", "tokens from 0 to 25"},
      {"/v1/embeddings", "{\"input\": 3}", "'input' is 3"},
      {"/v1/embeddings", "{\"input\": \"a\", \"dimensions\": 17}", "have 16 numbers"},
      {"/v1/embeddings", "{\"input\": \"a\", \"encoding_format\": \"hex\"}", "float or base64"},
      {"/v1/embeddings", "{\"input\": \"a\", \"temperature\": 1}", "unknown parameter 'temperature'"},
      {"/v1/embeddings", "{\"input\": \"0123456789012345678901234567890123456789012345678901234567890123456789\"}", "reads 64 tokens"},
      {"/v1/completions", "{\"prompt\": \"a\"}", "makes no text"},
      {"/sessions/x/fork", "{\"to\": \"y\"}", "no sessions"},
  };
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    CHECK(http_post(all[i].path, "%s", all[i].body) == 400 && strstr(http_reply, all[i].said), "%s: %s", all[i].body, http_reply);
  CHECK(server_end(&server) == 0, "not well");
}

int main(void) {
  signal(SIGPIPE, SIG_IGN);
  RUN(vectors_are_means_of_length_one);
  RUN(one_of_the_vectors_may_count);
  RUN(they_are_served);
  return test_end();
}
