/* test_own_inputs.c - what a verb writes takes the place of nothing that it reads, and a new model of no other: under other spellings,
 * by links, in a model's directory, and from the C API. What may go on under one name does. */
#define _GNU_SOURCE
#include <stdlib.h>

#include "base/file.h"
#include "cli/cli.h"
#include "mneme.h"
#include "test.h"

/* In the test's directory; $M is the program. */
#define SH_BEGIN "exec 2>&1 </dev/null; export MNEME_HOME=home; M=" MN_TEST_BINARY_DIR "/mneme; "
#include "program.h"

static void a_model(void) {
  static const char recipe[] = "name: own\ntokenizer: {type: bytes}\ndata: {files: [text.txt]}\n"
                               "model: {d_model: 16, layers: 1, block: {mixer: {type: attention, heads: 2, max_context: 64}, hidden: 16}}\n"
                               "train: {steps: 2, batch: 2, seq_len: 16, validation_batches: 1}\n";
  CHECK_OK(mn_file_write("own.yaml", recipe, sizeof recipe - 1));
  CHECK(
      sh("mkdir home; for i in $(seq 200); do echo the whale and the sea $i; done >text.txt; ln -s text.txt link.txt; ln text.txt hard.txt; "
         "head -c 40 text.txt >short.txt; ln -s . here; mkdir -p other alone data own all/own site sites/own logs matches; "
         "for i in site/config sites/own/recipe matches/match; do echo '{}' >$i.json; done; cp text.txt logs/metrics.jsonl; "
         "cp text.txt data/metrics.jsonl; cp text.txt own/recipe.json; ln -s own/recipe.json data.link; cp own.yaml all/own/recipe.json; "
         "cp own.yaml all/table.json; echo 'tracks: [{name: a, tokens: 64, recipe: {data: {files: [text.txt]}}}]' >tracks.yaml; cp tracks.yaml all/table.md; "
         "ln -s short.txt link2.txt; cp own.yaml alone/recipe.json; "
         "$M train own.yaml --out model --quiet --threads 1 >/dev/null && cp model/tokenizer.json data/ && cp -r model foreign && rm -r foreign/checkpoints foreign/metrics.jsonl && "
         "$M generate --model model --prompt a --tokens 2 --session-out model/s.safetensors") == 0,
      "%s", out);
}

/* Everything in the directory but what a run database and caches keep. */
#define LOOK "find . -path ./home -prune -o -type f -print0 | sort -z | xargs -0 md5sum"

static void no_output_is_an_input(void) {
  static const struct {
    const char *command, *says;
  } cases[] = {
      {"stream --model model short.txt --csv short.txt", "which is read"},
      {"stream --model model short.txt --csv ./short.txt", "which is read"},
      {"stream --model model text.txt --csv link.txt", "which is read"},
      {"stream --model model hard.txt --plot p.svg --csv other/../text.txt", "which is read"},
      {"stream --model model short.txt --session-out model/model.safetensors", "model.safetensors, which is read"},
      {"stream --model model short.txt --session-in model/s.safetensors --csv model/s.safetensors", "which is read"},
      {"stream --model model short.txt --csv c.csv --session-out ./c.csv", "both name"},
      {"stream --model model short.txt --csv c.csv --session-out other/../c.csv", "both name"},
      {"stream --model model/ short.txt --session-out model//config.json", "which is read"},
      {"generate --model model --prompt a --tokens 2 --session-out model/tokenizer.json", "which is read"},
      {"generate --model model --prompt-file short.txt --tokens 2 --session-out short.txt", "which is read"},
      {"eval --model model --data text.txt --batches 1 --soft-targets link.txt", "which is read"},
      {"eval --model model --batches 1 --soft-targets text.txt", "holds no soft targets"}, /* the recipe's data */
      {"eval --model model --batches 1 --soft-targets model/model.safetensors", "which is read"},
      {"apply own.yaml --output own.yaml", "which is read"},
      {"apply own.yaml --input short.txt --output -", "--output -: it does not go to standard output; give the name of a file"},
      {"stream --model model short.txt --csv -", "--csv -: it does not go to standard output"},
      {"train own.yaml --out -", "--out -: it does not go to standard output; give the name of a directory"},
      {"convert model --out -", "--out -: it does not go to standard output"},
      {"compare own.yaml --out both --db -", "--db -: it is no standard input or output; give the name of a file ('./-' for one that is"},
      {"train own.yaml --out both --db -", "--db -: it is no standard input or output"},
      {"adapt linearize model --out both --db -", "--db -: it is no standard input or output"},
      {"runs list --db -", "--db -: it is no standard input or output"},
      {"generate --model model --prompt-file -", "--prompt-file -: it is no standard input or output"},
      {"serve model --check --port 0 --sessions -", "--sessions -: it is no standard input or output; give the name of a directory"},
      {"apply model/recipe.json --input i.safetensors --output model/model.safetensors", "model/recipe.json belongs to"},
      {"apply own.yaml --input i.safetensors --params-out y.safetensors --output y.safetensors", "both name"},
      {"graft --base model --mixer synaptic --output model/recipe.json", "which is read"},
      {"convert model --out model", "what is read"},
      {"adapt linearize model --out model", "holds a model already"},
      {"adapt linearize model --out foreign", "holds a model already"},
      {"adapt merge model --out foreign", "holds a model already"},
      {"train own.yaml --out foreign", "holds a model already"},
      {"train own.yaml --out model", "already holds a run"},
      {"train own.yaml --out site", "site/config.json is there, and no training wrote it"},
      {"compare own.yaml --out sites", "sites/own/recipe.json is there, and no training wrote it"},
      {"train own.yaml --out logs", "logs/metrics.jsonl is there without the config.json of a training"},
      {"adapt merge model --out site", "site/config.json is there, and no training wrote it"},
      {"adapt linearize model --out matches", "matches/match.json is there, and no training wrote it"},
      {"train alone/recipe.json --out alone", "choose another --out"},
      {"train own.yaml --out fresh --db fresh/metrics.jsonl", "--db: fresh/metrics.jsonl"},
      {"train own.yaml --out fresh --db other/../fresh/config.json", "writes its own in its place"},
      {"train own.yaml --out fresh --db fresh//metrics.jsonl", "writes its own in its place"},
      {"train own.yaml --out fresh/ --db ./fresh/./metrics.jsonl", "writes its own in its place"},
      {"train own.yaml --out fresh// --db here/fresh/recipe.json", "writes its own in its place"},
      {"train own.yaml --out //$PWD/fresh --db fresh/config.json", "writes its own in its place"},
      {"train own.yaml --out here/fresh --db /$PWD/other/../fresh/tokenizer.json", "writes its own in its place"},
      {"train own.yaml --out new/deep/fresh --db new/./deep//fresh/model.safetensors", "writes its own in its place"},
      {"stream --model model short.txt --csv //$PWD/short.txt", "which is read"},
      {"stream --model model short.txt --csv here/./short.txt", "which is read"},
      {"stream --model model short.txt --csv c.csv --session-out //$PWD//c.csv", "both name"},
      {"stream --model model short.txt --csv c.csv --session-out here/here/./c.csv", "both name"},
      {"stream --model here/model/. short.txt --session-out //$PWD/model/config.json", "which is read"},
      {"stream --model //$PWD/model// short.txt --session-out model/./config.json", "which is read"},
      {"train own.yaml --out data --set data.files=[text.txt,data/metrics.jsonl]", "data/metrics.jsonl: a training into data writes"},
      {"train own.yaml --out data --set data.validation_files=[./data/./metrics.jsonl]", "writes its own in its place"},
      {"train own.yaml --out data --set tokenizer.type=file --set tokenizer.file=data/tokenizer.json", "writes its own in its place"},
      {"train own.yaml --out own --set data.files=[data.link]", "writes its own in its place"},
      {"compare all/own/recipe.json --out all", "choose another --out"},
      {"compare all/table.json --tracks tracks.yaml --out all", "a file of compare would take its place"},
      {"compare own.yaml --tracks all/table.md --out all", "a file of compare would take its place"},
      {"serve model --check --port 0 --access-log model/config.json", "which is read"},
      {"serve model --check --port 0 --api-key-file short.txt --access-log link2.txt", "which is read"},
  };
  CHECK(sh(LOOK " >home/before") == 0, "%s", out);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    CHECK(sh("$M %s --quiet", cases[i].command) == 2 && strstr(out, cases[i].says), "%s: %s", cases[i].command, out);
    CHECK(sh(LOOK " | diff home/before -") == 0, "%s changed: %s", cases[i].command, out);
  }
}

/* The same session goes on in its file, and what is no input may be replaced again and again. */
static void what_may_be_replaced_is(void) {
  static const char *const commands[] = {
      "stream --model model short.txt --session-in model/s.safetensors --session-out model/s.safetensors --quiet",
      "graft --base model --mixer synaptic --output model/grafted.json --quiet",
      "generate --model model --prompt short.txt --tokens 2 --session-out prompt.st --quiet",
      "stream --model model short.txt --csv a.csv --plot a.svg --session-out model/model-session.safetensors --quiet",
      "eval --model model --batches 1 --top 2 --soft-targets soft --quiet",
      "serve model --check --port 0 --access-log - --quiet"}; /* standard error */
  CHECK(sh("cp model/s.safetensors prompt.st; : >words") == 0, "%s", out);
  CHECK(sh("$M generate --model model --prompt words --tokens 2 --session-out words --quiet") == 0, "a text that is a file's name: %s",
        out);
  for (int turn = 0; turn < 2; turn++)
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
      CHECK(sh(turn && i == 0 ? "true" : "$M %s", commands[i]) == 0, "%s: %s", commands[i], out);
}

static void a_stream_of_tokens_has_no_end(void) {
  CHECK(
      sh("$M tokenize model --ids <text.txt >ids && cat text.txt text.txt text.txt >long.txt && $M tokenize model --ids <long.txt >long && "
         "wc -w <ids >a && wc -w <long >b && echo $((3 * $(cat a))) | diff - b") == 0,
      "%s", out);
  CHECK(sh("%s yes 'the whale' | $M tokenize model --ids | head -c 1000 | wc -c", TEST_ADDRESS_SANITIZER ? "" : "ulimit -v 4000000;") ==
                0 &&
            atoi(out) == 1000,
        "%s", out);
  CHECK(
      sh("{ echo hello world; echo the sea and the whale; i=0; while [ ! -s got ] && [ $i -lt 3000 ]; do sleep 0.01; i=$((i + 1)); done; [ -s got ] || : >late; } | "
         "$M tokenize model --ids >got && [ ! -e late ]") == 0,
      "what has come is shown: %s", out);
  CHECK(sh("$M tokenize model --decode <ids | cmp - text.txt") == 0, "%s", out);
  CHECK(sh("printf '72 105\\0 33' | $M tokenize model --decode") == 2 && strstr(out, "zero byte"), "the rest was lost: %s", out);
  CHECK(sh("yes 1 | $M tokenize model --decode") == 2 && strstr(out, "64 MiB"), "%s", out);
  CHECK(sh("yes 1 | $M tokenize model --json") == 2 && strstr(out, "64 MiB"), "%s", out);
}

static void a_training_saves_over_its_own_alone(void) {
  mn_training *t = NULL;
  CHECK_OK(mn_training_new("own.yaml", (const char *const[]){"seed=2", NULL}, 1, &t));
  CHECK(mn_training_save(t, "") == MN_ERR_ARG, "no name");
  CHECK(mn_training_save(t, "foreign") == MN_ERR_CONFIG && strstr(mn_message(), "did not save"), "%s", mn_message());
  CHECK(mn_training_save(t, "model") == MN_ERR_CONFIG, "%s", mn_message());
  CHECK(mn_training_save(t, "site") == MN_ERR_CONFIG && strstr(mn_message(), "site/config.json is there"), "%s", mn_message());
  CHECK_OK(mn_training_save(t, "saved"));
  CHECK_OK(mn_training_step(t, NULL));
  CHECK_OK(mn_training_save(t, "saved"));
  mn_training_free(t);
  CHECK_OK(mn_training_new("own.yaml", (const char *const[]){"data.files=[data/metrics.jsonl]", NULL}, 1, &t));
  CHECK(mn_training_save(t, "other/../data") == MN_ERR_CONFIG && strstr(mn_message(), "data/metrics.jsonl: a training"), "%s",
        mn_message());
  mn_training_free(t);
  CHECK(mn_lm_train("alone/recipe.json", NULL, "alone", false, NULL, NULL) == MN_ERR_CONFIG && strstr(mn_message(), "choose another"), "%s",
        mn_message());
  CHECK(mn_training_new("own.yaml", (const char *const[]){"train.steps=", NULL}, 1, &t) == MN_ERR_CONFIG &&
            strstr(mn_message(), "there is no value"),
        "%s", mn_message());
}

int main(void) {
  RUN(a_model);
  RUN(no_output_is_an_input);
  RUN(what_may_be_replaced_is);
  RUN(a_stream_of_tokens_has_no_end);
  RUN(a_training_saves_over_its_own_alone);
  return test_end();
}
