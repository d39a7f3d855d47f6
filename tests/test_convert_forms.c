/* `mneme convert` from one form to the other: a directory of Hugging Face's and the GGUF file made of it are the same model, there and
 * back to the same bits; in blocks it says nearly the same; and what the other form cannot say is refused, with nothing left behind. */
#include "base/file.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/convert.h"
#include "convert_check.h"
#include "format/gguf.h"
#include "format/tokenizer_gguf.h"
#include "small_llama.h"

static float logits[2][TOKENS * VOCAB];

/* Bits for each token by those before it. */
static double bits(const float *l) {
  double sum = 0;
  for (int t = 0; t + 1 < TOKENS; t++) {
    double top = -INFINITY, all = 0;
    for (int v = 0; v < VOCAB; v++) top = fmax(top, (double)l[t * VOCAB + v]);
    for (int v = 0; v < VOCAB; v++) all += exp((double)l[t * VOCAB + v] - top);
    sum += log(all) + top - (double)l[t * VOCAB + token_at(t + 1)];
  }
  return sum / log(2) / (TOKENS - 1);
}

static void there_and_back_is_the_same_model(void) {
  put_llama("hf", VOCAB, 64);
  CHECK(sh(MNEME "convert hf --out a.gguf --quiet 2>&1") == 0, "%s", out);
  CHECK(said("hf", logits[0]) && said("a.gguf", logits[1]), "both are opened");
  CHECK(apart(logits[0], logits[1], TOKENS * VOCAB) < 1e-5, "%g apart", apart(logits[0], logits[1], TOKENS * VOCAB));
  mn_gguf *g = NULL;
  uint32_t eos = 0, length = 0;
  CHECK_OK(mn_gguf_open("a.gguf", &g));
  if (!g) return;
  CHECK_OK(mn_gguf_u32(g, "tokenizer.ggml.eos_token_id", NULL, &eos));
  CHECK_OK(mn_gguf_u32(g, "llama.context_length", NULL, &length));
  CHECK(eos == 7 && length == 64 && mn_gguf_find(g, "blk.0.attn_q.weight") && mn_gguf_checksum(g), "names of GGUF");
  mn_gguf_close(g);
  CHECK(sh(MNEME "convert a.gguf --out back --quiet 2>&1") == 0, "%s", out);
  mn_st *was = NULL, *is = NULL;
  CHECK_OK(mn_st_open("hf/model.safetensors", &was));
  CHECK_OK(mn_st_open("back/model.safetensors", &is));
  if (!was || !is) return;
  CHECK(mn_st_count(was) == mn_st_count(is), "%d tensors", mn_st_count(is));
  for (int i = 0; i < mn_st_count(was); i++) {
    const mn_st_tensor *a = mn_st_at(was, i), *b = mn_st_find(is, a->name);
    CHECK(b && mn_shape_equal(&a->shape, &b->shape) && a->bytes == b->bytes && !memcmp(a->data, b->data, a->bytes), "%s", a->name);
  }
  mn_st_close(was);
  mn_st_close(is);
  CHECK(said("back", logits[1]) && apart(logits[0], logits[1], TOKENS * VOCAB) < 1e-6, "and says the same");
  CHECK(sh("grep -c '\"eos_token_id\": 7' back/generation_config.json") == 0, "%s", out);
}

/* All tokens that end an answer, more than other programs have names for. */
static void several_ends_stay_several(void) {
  static const int32_t ends[] = {7, 9, 11, 13};
  mn_bundle b;
  CHECK(
      sh("rm -rf many && cp -r hf many && echo '{\"bos_token_id\": 1, \"eos_token_id\": [7, 9, 11, 13]}' >many/generation_config.json && " MNEME
         "convert many --out many.gguf --quiet 2>&1 && " MNEME "convert many.gguf --out many-back --quiet 2>&1") == 0,
      "%s", out);
  static const char *const paths[] = {"many", "many.gguf", "many-back"};
  for (int i = 0; i < 3; i++) {
    CHECK_OK(mn_bundle_open(paths[i], NULL, 1, &b));
    CHECK(b.speech.n_eos == 4 && !memcmp(b.speech.eos, ends, sizeof ends), "%s: %d ends", paths[i], b.speech.n_eos);
    mn_bundle_close(&b);
  }
  uint32_t eot = 0;
  mn_gguf *g = NULL;
  CHECK_OK(mn_gguf_open("many.gguf", &g));
  if (g) CHECK_OK(mn_gguf_u32(g, "tokenizer.ggml.eot_token_id", NULL, &eot));
  CHECK(eot == 9, "other programs read two more: %u", eot);
  mn_gguf_close(g);
}

/* a.gguf with a vocabulary of SentencePiece's, as another program writes it: of the tokens that end an answer it names one. */
static void put_vocabulary(const char *path) {
  static char letters[VOCAB][8];
  static const char *const first[] = {"<unk>", "<s>", "</s>", "<|im_end|>"};
  mn_gguf *g = NULL;
  mn_gguf_writer *w = mn_gguf_writer_new();
  mn_gguf_bytes token[VOCAB];
  int32_t kind[VOCAB];
  float score[VOCAB];
  for (int i = 0; i < VOCAB; i++) {
    if (i >= 4) snprintf(letters[i], sizeof letters[i], i < 30 ? "%c" : "\xE2\x96\x81%c", i < 30 ? 'a' + i - 4 : '!' + i - 30);
    const char *text = i < 4 ? first[i] : letters[i];
    token[i] = (mn_gguf_bytes){text, strlen(text)};
    kind[i] = i == 0 ? 2 : i < 4 ? 3 : 1;
    score[i] = -(float)i;
  }
  CHECK_OK(mn_gguf_open("a.gguf", &g));
  for (int i = 0; g && i < mn_gguf_meta_count(g); i++)
    if (strncmp(mn_gguf_meta_at(g, i)->key, "tokenizer.", 10) != 0 && strncmp(mn_gguf_meta_at(g, i)->key, "mneme.", 6) != 0)
      CHECK_OK(mn_gguf_writer_copy(w, mn_gguf_meta_at(g, i)));
  CHECK_OK(mn_gguf_writer_string(w, "tokenizer.ggml.model", "llama"));
  CHECK_OK(mn_gguf_writer_strings(w, "tokenizer.ggml.tokens", token, VOCAB));
  CHECK_OK(mn_gguf_writer_i32s(w, "tokenizer.ggml.token_type", kind, VOCAB));
  CHECK_OK(mn_gguf_writer_f32s(w, "tokenizer.ggml.scores", score, VOCAB));
  CHECK_OK(mn_gguf_writer_u32(w, "tokenizer.ggml.eos_token_id", 2));
  for (int i = 0; g && i < mn_gguf_count(g); i++) {
    const mn_gguf_tensor *t = mn_gguf_at(g, i);
    CHECK_OK(mn_gguf_writer_add(w, t->name, t->type->type, &t->shape, t->data));
  }
  CHECK_OK(mn_gguf_writer_save(w, path));
  mn_gguf_writer_free(w);
  mn_gguf_close(g);
}

/* What begins and ends texts, by number and by name; a text's first token, whether a setting or the tokenizer puts it there. */
static void what_begins_and_ends_texts_goes_along(void) {
  static const char *const paths[] = {"spoken.gguf", "spoken", "again.gguf"};
  mn_gguf *g = NULL;
  bool begins = false;
  put_vocabulary("spoken.gguf");
  CHECK(sh(MNEME "convert spoken.gguf --out spoken --quiet 2>&1 && " MNEME "convert spoken --out again.gguf --quiet 2>&1") == 0, "%s", out);
  for (int i = 0; i < 3; i++) {
    mn_bundle b;
    mn_ids ids = {0};
    CHECK_OK(mn_bundle_open(paths[i], NULL, 1, &b));
    CHECK(b.speech.n_eos == 2 && mn_bundle_ends(&b, 2) && mn_bundle_ends(&b, 3) && b.speech.bos == 1, "%s: %d ends, %d begins", paths[i],
          b.speech.n_eos, b.speech.bos);
    if (b.tokenizer) CHECK_OK(mn_bundle_encode(&b, "a", 1, true, &ids));
    CHECK(ids.len == 2 && ids.data[0] == 1, "%s: %zu ids", paths[i], ids.len);
    mn_ids_free(&ids);
    mn_bundle_close(&b);
  }
  CHECK(sh("cat spoken/tokenizer_config.json") == 0 && strstr(out, "\"bos_token\": \"<s>\"") && strstr(out, "\"eos_token\": \"</s>\"") &&
            strstr(out, "\"add_bos_token\": true"),
        "%s", out);
  CHECK_OK(mn_gguf_open("again.gguf", &g));
  if (g) CHECK_OK(mn_gguf_bool(g, "tokenizer.ggml.add_bos_token", NULL, &begins));
  CHECK(begins, "other programs put it there, too");
  mn_gguf_close(g);
  /* where no setting says it, and the tokenizer does it */
  CHECK(sh("rm -rf unsaid && cp -r spoken unsaid && sed -i '/add_bos_token/d' unsaid/tokenizer_config.json && " MNEME
           "convert unsaid --out unsaid.gguf --quiet 2>&1") == 0,
        "%s", out);
  begins = false;
  CHECK_OK(mn_gguf_open("unsaid.gguf", &g));
  if (g) CHECK_OK(mn_gguf_bool(g, "tokenizer.ggml.add_bos_token", NULL, &begins));
  CHECK(begins, "the tokenizer does");
  mn_gguf_close(g);
}

/* The token that a model says greedily, or by beams; -1: none. */
static int says_first(const char *model, const char *how) {
  CHECK(sh(MNEME "generate --model %s --prompt abc --tokens 1 %s --json --quiet 2>/dev/null", model, how) == 0, "%s", out);
  const char *at = strstr(out, "\"tokens\": [");
  return at ? atoi(at + 11) : -1;
}

/* Tokens that a checkpoint does not want said are not drawn, in either form. */
static void what_is_not_to_be_said_is_not(void) {
  const int first = says_first("spoken", "--temperature 0");
  CHECK(first >= 0 && says_first("spoken.gguf", "--temperature 0") == first, "both say %d", first);
  CHECK(sh("rm -rf hush && cp -r spoken hush && sed -i 's/{/{\"suppress_tokens\": [%d, -1, 999999], \"no_repeat_ngram_size\": 0,/' "
           "hush/generation_config.json && " MNEME "convert hush --out hush.gguf --quiet 2>&1 && " MNEME
           "convert hush.gguf --out hush-back --quiet 2>&1",
           first) == 0,
        "%s", out);
  static const char *const paths[] = {"hush", "hush.gguf", "hush-back"};
  const int other = says_first(paths[0], "--temperature 0");
  CHECK(other >= 0 && other != first, "it says %d, and not %d", other, first);
  for (int i = 1; i < 3; i++) CHECK(says_first(paths[i], "--temperature 0") == other, "%s", paths[i]);
  for (int i = 0; i < 3; i++) CHECK(says_first(paths[i], "--beams 1") != first, "%s, by beams", paths[i]);
  CHECK(sh(MNEME "generate --model hush --prompt abc --tokens 1 --temperature 0 2>&1") == 0 &&
            !strstr(out, "not done when tokens are drawn"),
        "%s", out);
  CHECK(sh("sed -i 's/\"no_repeat_ngram_size\": 0/\"no_repeat_ngram_size\": 3/' hush/generation_config.json && MNEME_LOG=warn " MNEME
           "generate --model hush --prompt abc --tokens 1 --temperature 0 2>&1") == 0 &&
            strstr(out, "not done when tokens are drawn: no_repeat_ngram_size"),
        "%s", out);
}

static void in_blocks_it_says_nearly_the_same(void) {
  static const struct {
    const char *type;
    double bits, apart;
  } most[] = {{"bf16", 0.02, 0.02}, {"q8_0", 0.02, 0.03},   {"q6_k", 0.08, 0.08}, {"q5_k", 0.15, 0.15}, {"q4_k", 0.25, 0.25},
              {"q4_0", 0.25, 0.25}, {"iq4_xs", 0.25, 0.25}, {"q3_k", 0.5, 0.5},   {"q2_k", 1.2, 0.9}};
  const double before = bits(logits[0]);
  double last = 0;
  for (size_t i = 0; i < sizeof most / sizeof *most; i++) {
    CHECK(sh(MNEME "convert hf --out b.gguf --type %s --quiet 2>&1", most[i].type) == 0, "%s", out);
    if (!said("b.gguf", logits[1])) continue;
    const double after = bits(logits[1]), far = apart(logits[0], logits[1], TOKENS * VOCAB);
    CHECK(fabs(after - before) < most[i].bits && far < most[i].apart, "%s: %.4f bits, before %.4f; %g apart", most[i].type, after, before,
          far);
    last = far;
  }
  CHECK(last > 0.05, "q2_k is no copy: %g apart", last);
}

static void checkpoints_of_others_stay_what_they_are(void) {
  static const char *const names[] = {
      "checkpoints/llama", "checkpoints/smollm",  "checkpoints/mistral", "checkpoints/gemma", "checkpoints/gemma2", "checkpoints/gemma3",
      "checkpoints/qwen2", "checkpoints/qwen3",   "checkpoints/phi3",    "checkpoints/gpt2",  "hybrids/lfm2",       "hybrids/mamba2",
      "hybrids/granite",   "hybrids/granite_moe", "hybrids/mixtral",     "hybrids/qwen3_moe", "hybrids/olmoe",      "hybrids/qwen3_next",
      "hybrids/qwen3_5",   "hybrids/qwen3_5_moe", "hybrids/kimi_linear", "hybrids/bamba",     "hybrids/rwkv7"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char path[600];
    snprintf(path, sizeof path, GOLDEN "%s", names[i]);
    there_and_back(path, "");
  }
}

/* Tensors of a.gguf in files part-0000I-of-00003.gguf as llama.cpp's programs split a model: metadata in the first alone. */
static void put_parts(int last_no, int told) {
  mn_gguf *g = NULL;
  CHECK_OK(mn_gguf_open("a.gguf", &g));
  for (int i = 0; g && i < 3; i++) {
    mn_gguf_writer *w = mn_gguf_writer_new();
    char name[64];
    snprintf(name, sizeof name, "part-%05d-of-00003.gguf", i + 1);
    for (int k = 0; !i && k < mn_gguf_meta_count(g); k++) CHECK_OK(mn_gguf_writer_copy(w, mn_gguf_meta_at(g, k)));
    CHECK_OK(mn_gguf_writer_u32(w, "split.no", (uint32_t)(i == 2 ? last_no : i)));
    CHECK_OK(mn_gguf_writer_u32(w, "split.count", 3));
    CHECK_OK(mn_gguf_writer_i32(w, "split.tensors.count", told ? told : mn_gguf_count(g)));
    for (int k = i; k < mn_gguf_count(g); k += 3) {
      const mn_gguf_tensor *t = mn_gguf_at(g, k);
      CHECK_OK(mn_gguf_writer_add(w, t->name, t->type->type, &t->shape, t->data));
    }
    CHECK_OK(mn_gguf_writer_save(w, name));
    mn_gguf_writer_free(w);
  }
  mn_gguf_close(g);
}

static void no_model(const char *path, const char *says) {
  mn_checkpoint *c = NULL;
  CHECK(mn_checkpoint_open(path, &c) != MN_OK && strstr(mn_message(), says), "%s: %s", path, c ? "opened" : mn_message());
  mn_checkpoint_close(c);
}

static void a_model_in_several_files_is_one(void) {
  static float a[TOKENS * 512], b[TOKENS * 512];
  const int n = TOKENS * said("a.gguf", a);
  put_parts(2, 0);
  CHECK(said("part-00001-of-00003.gguf", b) && n && !memcmp(a, b, (size_t)n * sizeof *a), "the same bits: %g apart", apart(a, b, n));
  CHECK(sh("rm -f one.gguf && " MNEME "convert part-00001-of-00003.gguf --out one.gguf --quiet 2>&1") == 0, "%s", out);
  CHECK(said("one.gguf", b) && !memcmp(a, b, (size_t)n * sizeof *a), "joined: %g apart", apart(a, b, n));
  no_model("part-00002-of-00003.gguf", "file 2 of 3 of a model; open the first of them");
  CHECK(sh("cp part-00001-of-00003.gguf other.gguf") == 0, "%s", out);
  no_model("other.gguf", "must be named NAME-00001-of-00003.gguf");
  CHECK(sh("mv part-00003-of-00003.gguf away") == 0, "%s", out);
  no_model("part-00001-of-00003.gguf", "file 3 of 3: ");
  CHECK(sh("cp part-00002-of-00003.gguf part-00003-of-00003.gguf") == 0, "%s", out);
  no_model("part-00001-of-00003.gguf", "says that it is file 2 of 3, and should be file 3 of 3");
  put_parts(7, 0);
  no_model("part-00001-of-00003.gguf", "says that it is file 8 of 3");
  put_parts(2, 4);
  no_model("part-00001-of-00003.gguf", "'split.tensors.count' says 4");
  mn_gguf *g = NULL;
  CHECK_OK(mn_gguf_open("one.gguf", &g));
  CHECK(g && !mn_gguf_meta_find(g, "split.count") && !mn_gguf_meta_find(g, "split.no"), "one file is no part");
  mn_gguf_close(g);
}

/* Any kind of memory, tokenizer and all, in a GGUF file of Mneme's own architecture. */
static void a_model_of_ours_is_itself_in_a_gguf_file(void) {
  static const char recipe[] = "name: ours\n"
                               "tokenizer: {type: bpe, vocab_size: 290}\n"
                               "data: {files: [" MN_TEST_SOURCE_DIR "/docs/engine.md]}\n"
                               "model: {d_model: 32, layers: 2, block: {mixer: {type: titans_mag, heads: 2, chunk: 4}, hidden: 64}}\n"
                               "train: {steps: 4, batch: 2, seq_len: 32, validation_batches: 1}\n";
  static float a[TOKENS * 512], b[TOKENS * 512];
  char command[600], first[4096];
  CHECK_OK(mn_file_write("ours.yaml", recipe, sizeof recipe - 1));
  CHECK(sh("MNEME_HOME=home " MNEME "train ours.yaml --quiet --out ours 2>&1") == 0, "%s", out);
  CHECK(sh(MNEME "convert ours --out ours.gguf --quiet 2>&1") == 0, "%s", out);
  const int n = TOKENS * said("ours", a);
  CHECK(said("ours.gguf", b) && n && !memcmp(a, b, (size_t)n * sizeof *a), "the same bits: %g apart", apart(a, b, n));
  CHECK(sh(MNEME "convert ours --out ours8.gguf --type q8_0 --quiet 2>&1") == 0, "%s", out);
  CHECK(said("ours8.gguf", b) && apart(a, b, n) < 0.05 && apart(a, b, n) > 0, "in blocks %g apart", apart(a, b, n));
  CHECK(sh(MNEME "inspect --params ours8.gguf 2>&1") == 0 && strstr(out, "architecture    mneme") &&
            strstr(out, "layers.0.mixer.memory.q_proj.weight                Q8_0") &&
            strstr(out, "layers.0.mixer.memory.q_conv.weight                F32"),
        "%s", out);
  snprintf(command, sizeof command, "%s", MNEME "generate --model %s --prompt 'The engine' --tokens 8 --temperature 0 --quiet 2>/dev/null");
  CHECK(sh(command, "ours") == 0, "%s", out);
  snprintf(first, sizeof first, "%.4000s", out);
  CHECK(sh(command, "ours.gguf") == 0 && !strcmp(first, out), "%s and %s", first, out);
  CHECK(sh(MNEME "convert ours --out there --quiet 2>&1") == 1 && strstr(out, "which no other program knows"), "%s", out);
  CHECK(sh(MNEME "convert ours.gguf --out there --quiet 2>&1") == 1 && strstr(out, "has no place in a directory"), "%s", out);
  CHECK(!mn_file_exists("there"), "nothing is left, no folder either");
}

/* The vocabulary that other programs read says the same as the tokenizer.json that it was made of. */
static void the_vocabulary_of_a_gguf_file_is_the_tokenizers(void) {
  static const char text[] = "The whale's 1851 voyages,\n\n  don't   they? \xC3\xA9t\xC3\xA9 \xE6\xB5\xB7 <|endoftext|> 12345 x=y;";
  mn_gguf *g = NULL;
  mn_tokenizer *whole = NULL, *list = NULL;
  mn_ids a = {0}, b = {0};
  CHECK_OK(mn_gguf_open("ours.gguf", &g));
  CHECK_OK(mn_tokenizer_load("ours/tokenizer.json", &whole));
  if (!g || !whole) return;
  CHECK(mn_tokenizer_in_gguf(g), "there is a vocabulary");
  CHECK_OK(mn_tokenizer_from_gguf(g, &list));
  CHECK_OK(mn_tokenizer_encode(whole, text, sizeof text - 1, MN_ENCODE_SPECIAL, &a));
  if (list) CHECK_OK(mn_tokenizer_encode(list, text, sizeof text - 1, MN_ENCODE_SPECIAL, &b));
  CHECK(a.len > 20 && a.len == b.len && !memcmp(a.data, b.data, a.len * sizeof *a.data), "%zu ids and %zu", a.len, b.len);
  mn_ids_free(&a);
  mn_ids_free(&b);
  mn_tokenizer_free(whole);
  mn_tokenizer_free(list);
  mn_gguf_close(g);
}

/* Other programs open a file only where its vocabulary has as many tokens as the model has rows: models have rows that no token needs, and
 * tokenizers tokens that were added and never learned. */
static void a_vocabulary_has_a_token_for_each_row(void) {
  enum { MERGED = 409 }; /* and one that was added */
  static const int cases[] = {MERGED + 7, MERGED + 1, MERGED, MERGED - 1};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    mn_gguf *g = NULL;
    mn_tokenizer *tok = NULL;
    mn_arena *arena = mn_arena_new();
    const mn_gguf_bytes *list = NULL;
    size_t n = 0;
    CHECK(sh("rm -rf rows rows.gguf") == 0, "%s", out);
    put_llama("rows", cases[i], 64);
    CHECK(
        sh("sed 's/\"added_tokens\": *\\[/&{\"id\": 409, \"content\": \"<mask>\", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, "
           "\"normalized\": false, \"special\": true},/' " GOLDEN "tokenizer/gpt2.json >rows/tokenizer.json && grep -q '<mask>' "
           "rows/tokenizer.json && " MNEME "convert rows --out rows.gguf --quiet 2>&1") == 0,
        "%s", out);
    CHECK_OK(mn_gguf_open("rows.gguf", &g));
    if (g && cases[i] < MERGED) CHECK(!mn_tokenizer_in_gguf(g), "merged tokens have no row: no vocabulary of it");
    if (g && cases[i] >= MERGED) {
      CHECK_OK(mn_gguf_strings(g, "tokenizer.ggml.tokens", arena, &list, &n));
      CHECK((int)n == cases[i], "%zu tokens for %d rows", n, cases[i]);
      CHECK_OK(mn_tokenizer_from_gguf(g, &tok));
      for (size_t t = MERGED; t < n; t++) {
        const char *want = t == MERGED ? "<mask>" : "[PAD";
        CHECK(list[t].n > 4 && !memcmp(list[t].data, want, strlen(want)), "token %zu of %d", t, cases[i]);
      }
    }
    mn_tokenizer_free(tok);
    mn_arena_free(arena);
    mn_gguf_close(g);
  }
}

/* What config.json leaves out, as its class has a usual value, and other programs refuse a GGUF file without. */
static void what_is_usual_is_said_where_others_need_it(void) {
  static const struct {
    const char *model, *setting, *key;
  } cases[] = {{"checkpoints/qwen3", "max_position_embeddings", "qwen3.context_length"},
               {"hybrids/mamba2", "conv_kernel", "mamba2.ssm.conv_kernel"},
               {"hybrids/granite", "mamba_d_conv", "granitehybrid.ssm.conv_kernel"},
               {"hybrids/lfm2", "conv_L_cache", "lfm2.shortconv.l_cache"},
               {"hybrids/mixtral", "num_experts_per_tok", "llama.expert_used_count"},
               {"hybrids/rwkv7", "norm_eps", "rwkv7.attention.layer_norm_epsilon"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    mn_gguf *g = NULL;
    CHECK(sh("rm -rf less less.gguf && cp -r " GOLDEN "%s less && sed -i '/\"%s\"/d' less/config.json && " MNEME
             "convert less --out less.gguf --quiet 2>&1",
             cases[i].model, cases[i].setting) == 0,
          "%s: %s", cases[i].model, out);
    CHECK_OK(mn_gguf_open("less.gguf", &g));
    CHECK(g && mn_gguf_meta_find(g, cases[i].key), "%s without %s lacks %s", cases[i].model, cases[i].setting, cases[i].key);
    mn_gguf_close(g);
  }
}

static void what_has_no_form_there_is_refused_and_leaves_nothing(void) {
  static const struct {
    const char *change, *arguments, *says;
    int code;
  } cases[] = {
      {"true", "bad --out x.gguf --type q4_k --tensor '*ffn_up*=i8'", "no type of weights", 2},
      {"true", "a.gguf --out x --type q8_0", "holds f32, f16 and bf16", 2},
      {"true", "a.gguf --out x --tensor '*fnn_up*=f16'", "fits no tensor", 2},
      {"true", "bad --out x", "is a directory of Hugging Face's already", 1},
      {"mkdir -p full && touch full/mine", "a.gguf --out full", "to a new or an empty directory", 2},
      {"touch file", "a.gguf --out file", "a GGUF file's name ends in .gguf", 2},
      {"true", GOLDEN "hybrids/lfm2_moe --out x.gguf", "has no place in a GGUF file of this architecture", 1},
      {"true", GOLDEN "hybrids/falcon_h1 --out x.gguf", "the other form has no way to say model", 1},
      {"sed -i 's/model.norm.weight/model.nose.weight/' bad/model.safetensors", "bad --out x.gguf", "does not match its checksum", 1},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    CHECK(sh("rm -rf bad && cp -r hf bad && %s", cases[i].change) == 0, "%s", out);
    CHECK(sh(MNEME "convert %s --quiet 2>&1", cases[i].arguments) == cases[i].code && strstr(out, cases[i].says), "%s: %s",
          cases[i].arguments, out);
    CHECK(!mn_file_exists("x.gguf") && sh("ls x/* full 2>/dev/null | grep -v -e '^full' -e mine -e '^$'") == 1, "%s leaves %s",
          cases[i].arguments, out);
    CHECK(!mn_file_exists("x"), "%s leaves a folder", cases[i].arguments);
  }
  CHECK(sh("mkdir x && " MNEME "convert a.gguf --out x --type q8_0 --quiet 2>&1") == 2 && mn_file_exists("x"), "a folder of yours stays");
}

/* A directory that is written to is one conversion's; what anybody else puts there meanwhile stays, however the conversion ends. */
typedef struct visit {
  const char *puts; /* a file; NULL: another conversion begins */
  bool goes_on;
  int calls;
} visit;
static bool visited(void *ctx, const char *what, int64_t done, int64_t total) {
  visit *v = ctx;
  (void)what, (void)done, (void)total;
  if (v->calls++) return v->goes_on;
  if (v->puts) CHECK_OK(mn_file_write(v->puts, "mine\n", 5));
  else
    CHECK(sh(MNEME "convert a.gguf --out visited --quiet 2>&1") != 0 && strstr(out, "visited/model.safetensors"), "two at once: %s", out);
  return v->goes_on;
}
static void what_appears_meanwhile_stays(void) {
  static const struct {
    const char *puts, *says; /* NULL: it ends as it would have */
  } cases[] = {{"visited/notes.txt", "visited/notes.txt appeared there meanwhile"},
               {"visited/config.json", "visited/config.json appeared there meanwhile"},
               {"visited/model.safetensors", "visited/model.safetensors"},
               {NULL, NULL}};
  for (int i = 0; i < 8; i++) {
    const char *puts = cases[i / 2].puts;
    visit v = {.puts = puts, .goes_on = i % 2};
    mn_convert_report report;
    CHECK(sh("rm -rf visited") == 0, "%s", out);
    const mn_status status =
        mn_convert("a.gguf", "visited", &(mn_convert_options){.type = MN_BF16, .watch = {.progress = visited, .ctx = &v}}, &report);
    if (!v.goes_on) CHECK(status == MN_ERR_CANCELLED, "%s", mn_message());
    else CHECK(puts ? status == MN_ERR_IO && strstr(mn_message(), cases[i / 2].says) : status == MN_OK, "%s", mn_message());
    CHECK(v.calls > 0 && (!puts || sh("test \"$(ls -A visited)\" = %s && grep -qx mine %s", puts + 8, puts) == 0), "%s: %s",
          puts ? puts : "-", out);
    CHECK(puts || mn_file_exists("visited") == v.goes_on, "nothing of ours is left");
  }
  CHECK(sh("! ls -A visited | grep mneme") == 0, "no lock stays: %s", out);
}

int main(void) {
  setenv("MNEME_LOG", "error", 1);
  RUN(there_and_back_is_the_same_model);
  RUN(several_ends_stay_several);
  RUN(what_begins_and_ends_texts_goes_along);
  RUN(what_is_not_to_be_said_is_not);
  RUN(in_blocks_it_says_nearly_the_same);
  RUN(checkpoints_of_others_stay_what_they_are);
  RUN(a_model_in_several_files_is_one);
  RUN(a_model_of_ours_is_itself_in_a_gguf_file);
  RUN(the_vocabulary_of_a_gguf_file_is_the_tokenizers);
  RUN(a_vocabulary_has_a_token_for_each_row);
  RUN(what_is_usual_is_said_where_others_need_it);
  RUN(what_has_no_form_there_is_refused_and_leaves_nothing);
  RUN(what_appears_meanwhile_stays);
  return test_end();
}
