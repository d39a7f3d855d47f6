/* chat_text.h - `mneme chat` with a model of text that has a chat template. */
#ifndef MN_CHAT_TEXT_H
#define MN_CHAT_TEXT_H

#include "checkpoint/bundle.h"
#include "cli/cli.h"

/* The whole of it: options, session, dialogue. The bundle has a tokenizer. folder: of the sessions. */
mn_status mn_chat_text_run(mn_cli *cli, const mn_bundle *bundle, const char *folder);

#endif
