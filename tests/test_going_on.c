/* What must be true of a training that goes on: a finished run takes more steps, and not fewer; a new run begins with the
 * weights and the tokenizer of a trained model, names tensors that do not fit, and says what it began with. */

#include "base/file.h"
#include "base/text.h"
#include "program.h"
#include "scratch.h"
#include "test.h"

#define DIR "going-on"

static const char recipe[] = "seed: 1\ntokenizer: {type: bytes}\ndata: {files: [" DIR "/text.txt], cache: " DIR "/cache}\n"
                             "model: {d_model: 16, layers: 1, block: {mixer: {type: attention, heads: 2}}}\n"
                             "train: {steps: 4, batch: 2, seq_len: 16, schedule: {type: constant}}\n";
#define TRAIN MNEME "train " DIR "/recipe.yaml --db " DIR "/runs.db "

static void a_finished_run_takes_more_steps(void) {
  CHECK(sh("rm -rf " DIR " && mkdir -p " DIR) == 0, "%s", out);
  mn_text text = {0};
  for (int i = 0; i < 200; i++) mn_text_addf(&text, "line %d of a text that is long enough to be read twice\n", i);
  CHECK_OK(mn_file_write(DIR "/text.txt", text.data, text.len));
  CHECK_OK(mn_file_write(DIR "/recipe.yaml", recipe, strlen(recipe)));
  mn_text_free(&text);
  CHECK(sh(TRAIN "--out " DIR "/short 2>&1") == 0, "%s", out);
  CHECK(sh(TRAIN "--out " DIR "/short --resume --set train.steps=7 2>&1") == 0 && strstr(out, "train.steps was 4 and is 7 now"), "%s", out);
  CHECK(sh(TRAIN "--out " DIR "/long --set train.steps=7 2>&1") == 0, "%s", out);
  CHECK(sh("cmp " DIR "/short/model.safetensors " DIR "/long/model.safetensors 2>&1") == 0 ||
            sh("cmp " DIR "/short/checkpoints/step-7/optimizer.safetensors " DIR "/long/checkpoints/step-7/optimizer.safetensors 2>&1") ==
                0,
        "with a constant rate the longer run is the run of so many steps: %s", out);
  CHECK(sh(TRAIN "--out " DIR "/short --resume --set train.steps=5 2>&1") == 2 && strstr(out, "raised, not lowered"), "%s", out);
  CHECK(sh(TRAIN "--out " DIR "/short --resume --set train.steps=7 --set train.optimizer.lr=0.5 2>&1") == 2 && strstr(out, "optimizer.lr"),
        "%s", out);
  CHECK(sh(TRAIN "--out " DIR "/short --resume --set train.steps=7 --set 'train.optimizer.betas=[0.5, 0.9]' 2>&1") == 2 &&
            strstr(out, "betas") && strstr(out, "0.5") && !strstr(out, "a list"),
        "what is in a list is said: %s", out);
  /* ... and a long one is cut between its letters, wherever the cut comes */
  for (int i = 0; i < 2; i++) {
    mn_text name = {0};
    mn_text_add(&name, i ? DIR "/a" : DIR "/");
    for (int k = 0; k < 110; k++) mn_text_add(&name, "\xc3\xbc");
    CHECK_OK(mn_file_write(name.data, recipe, strlen(recipe)));
    CHECK(sh(TRAIN "--out " DIR "/short --resume --set train.steps=7 --set 'data.files=[" DIR "/text.txt,%s]' 2>&1", name.data) == 2 &&
              strstr(out, "data.files was") && strstr(out, "... now") && mn_utf8_valid(out, strlen(out)) == strlen(out),
          "%s", out);
    mn_text_free(&name);
  }
}

static void a_new_run_begins_with_given_weights(void) {
  CHECK(sh(TRAIN "--out " DIR "/still --from " DIR "/short --set train.steps=1 --set train.optimizer.lr=0 2>&1") == 0 &&
            strstr(out, DIR "/short"),
        "%s", out);
  static char was[sizeof out];
  CHECK(sh(MNEME "eval --json --model " DIR "/short --data " DIR "/text.txt --seq-len 16 --batch 2 2>/dev/null | grep '\"loss\"'") == 0,
        "%s", out);
  strcpy(was, out);
  CHECK(sh(MNEME "eval --json --model " DIR "/still --data " DIR "/text.txt --seq-len 16 --batch 2 2>/dev/null | grep '\"loss\"'") == 0 &&
            !strcmp(was, out),
        "a step of rate 0 leaves the weights as they were: %s and %s", was, out);
  CHECK(sh("grep -l 'going-on/short' " DIR "/still/recipe.json " DIR "/still/checkpoints/step-1/trainer.json") == 0 &&
            strstr(out, "trainer.json") && strstr(out, "recipe.json"),
        "the run says what it began with: %s", out);
  CHECK(sh(MNEME "train --resume --db " DIR "/runs.db --out " DIR "/still --set train.steps=2 2>&1") == 0, "%s", out);
  CHECK(sh(TRAIN "--out " DIR "/other --from " DIR "/short --set model.d_model=32 2>&1") != 0 && strstr(out, "embed_tokens.weight") &&
            strstr(out, "train.from"),
        "%s", out);
  CHECK(sh(TRAIN "--out " DIR "/other --from " DIR "/short --set train.from=" DIR "/short 2>&1") == 2 && strstr(out, "two names for one"),
        "%s", out);
  CHECK(sh(TRAIN "--out " DIR "/other --from " DIR "/short --set 'train={from: " DIR "/short, steps: 1}' 2>&1") == 2 &&
            strstr(out, "two names for one"),
        "%s", out);
  CHECK(sh(TRAIN "--out " DIR "/other --from " DIR "/short --set model.layers=2 2>&1") != 0 && strstr(out, "layers.1."), "%s", out);
  CHECK(sh(TRAIN "--out " DIR "/other --from " DIR "/nothing 2>&1") == 2 && strstr(out, "going-on/nothing"), "%s", out);
}

/* Eight hundred ends of documents that nobody hears are said; a word or two are not. */
static void spelled_tokens_are_said(void) {
  mn_text many = {0};
  for (int i = 0; i < 800; i++) mn_text_addf(&many, "document %d of some words <|endoftext|>\n", i);
  CHECK_OK(mn_file_write(DIR "/many.txt", many.data, many.len));
  mn_text_free(&many);
  CHECK_OK(mn_file_write(DIR "/few.txt", "a <|endoftext|> and a b <| c |> d <|x|>\n", 40));
  const char *file = "--set data.files=[" DIR "/many.txt]";
  CHECK(sh(TRAIN "--out " DIR "/many %s 2>&1", file) == 0 && strstr(out, "spells out <|endoftext|> 800 times") &&
            strstr(out, "data.separator"),
        "%s", out);
  CHECK(sh(TRAIN "--out " DIR "/heard %s --set 'data.separator=<|endoftext|>' 2>&1", file) == 0 && !strstr(out, "spells out"), "%s", out);
  CHECK(sh(MNEME "stream --forget --model " DIR "/many " DIR "/many.txt 2>&1") == 0 && strstr(out, "spells out <|endoftext|> 800 times"),
        "%s", out);
  mn_text pairs = {0}; /* where a text is read line by line, too */
  for (int i = 0; i < 100; i++) mn_text_addf(&pairs, "say %d<|endoftext|>\tso %d\n", i, i);
  CHECK_OK(mn_file_write(DIR "/pairs.tsv", pairs.data, pairs.len));
  mn_text_free(&pairs);
  CHECK(sh(TRAIN "--out " DIR "/pairs --set 'data={type: pairs, files: [" DIR
                 "/pairs.tsv], source_len: 32, target_len: 16}' --set 'model={type: "
                 "encoder_decoder, max_source: 32, d_model: 16, layers: 1, block: {mixer: {type: attention, heads: 2}}, "
                 "encoder: {layers: 1, block: {mixer: {type: attention, heads: 2, causal: false}}}}' --set train.seq_len=0 "
                 "2>&1") == 0 &&
            strstr(out, "spells out <|endoftext|> 100 times"),
        "%s", out);
  CHECK(sh(MNEME "stream --model " DIR "/many " DIR "/few.txt 2>&1") == 0 && !strstr(out, "spells out"), "%s", out);
}

int main(void) {
  RUN(a_finished_run_takes_more_steps);
  RUN(a_new_run_begins_with_given_weights);
  RUN(spelled_tokens_are_said);
  return test_end();
}
