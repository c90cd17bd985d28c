//! Qwen3's chat format: messages to the text the model was trained on.
//!
//! The rule is the Jinja template in the model's own files, which this module follows character by character. Its
//! peculiarities: tool definitions go into the system message; tool results travel as a user message; the reasoning
//! of earlier turns is dropped, while that of the current turn (everything after the last real user message) is kept,
//! so that a chain of tool calls can continue its thought.
//!
//! Text is not escaped: a message that spells `<|im_end|>` ends there, as in every engine that uses the template.

mod json;

#[cfg(test)]
mod tests;

use alloc::string::String;
use alloc::vec::Vec;

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Instructions.
    System(&'a str),
    /// A question.
    User(&'a str),
    /// An earlier answer.
    Assistant {
        /// What was said. If `reasoning` is `None`, a leading `<think>…</think>` is taken as the reasoning.
        content: &'a str,
        /// What was thought, if it is known apart from `content`.
        reasoning: Option<&'a str>,
        /// What was called.
        tool_calls: Vec<ToolCall<'a>>,
    },
    /// The result of a call.
    Tool(&'a str),
}

/// A call of a tool by the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall<'a> {
    /// The function's name.
    pub name: &'a str,
    /// Its arguments, as the text of a JSON object.
    pub arguments: &'a str,
}

/// Whether the model may think before it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Thinking {
    /// The model opens a `<think>` block if it sees fit.
    #[default]
    Enabled,
    /// An empty `<think>` block is put in its mouth.
    Disabled,
}

const TOOLS_BEFORE: &str = "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n\
    You are provided with function signatures within <tools></tools> XML tags:\n<tools>";
const TOOLS_AFTER: &str = "\n</tools>\n\nFor each function call, return a json object with function name and \
    arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n\
    {\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call><|im_end|>\n";

/// The prompt that asks for the next answer in a conversation. `tools` are definitions, each the text of a JSON value;
/// only its white space is changed, to that of the model's training. Encode the result with control tokens recognised.
pub fn template(messages: &[Message<'_>], thinking: Thinking, tools: &[&str]) -> String {
    let mut prompt = String::new();
    system(&mut prompt, messages.first(), tools);

    let last_query = last_query(messages);
    for (index, message) in messages.iter().enumerate() {
        match message {
            // The first one has been written already.
            Message::System(_) if index == 0 => {}
            Message::System(text) => turn(&mut prompt, "system", text),
            Message::User(text) => turn(&mut prompt, "user", text),
            Message::Assistant {
                content,
                reasoning,
                tool_calls,
            } => {
                let place = Place {
                    after_query: index > last_query,
                    last: index + 1 == messages.len(),
                };
                assistant(&mut prompt, content, *reasoning, tool_calls, place);
            }
            Message::Tool(result) => {
                let before = index.checked_sub(1).and_then(|index| messages.get(index));
                tool_result(&mut prompt, before, result, messages.get(index + 1));
            }
        }
    }
    prompt.push_str("<|im_start|>assistant\n");
    if thinking == Thinking::Disabled {
        prompt.push_str("<think>\n\n</think>\n\n");
    }
    prompt
}

fn turn(prompt: &mut String, role: &str, text: &str) {
    for part in ["<|im_start|>", role, "\n", text, "<|im_end|>\n"] {
        prompt.push_str(part);
    }
}

/// The system message, which also defines the tools.
fn system(prompt: &mut String, first: Option<&Message<'_>>, tools: &[&str]) {
    let text = match first {
        Some(Message::System(text)) => Some(*text),
        _ => None,
    };
    if tools.is_empty() {
        if let Some(text) = text {
            turn(prompt, "system", text);
        }
        return;
    }
    prompt.push_str("<|im_start|>system\n");
    if let Some(text) = text {
        prompt.push_str(text);
        prompt.push_str("\n\n");
    }
    prompt.push_str(TOOLS_BEFORE);
    for tool in tools {
        prompt.push('\n');
        json::push_spaced(tool, prompt);
    }
    prompt.push_str(TOOLS_AFTER);
}

/// The index of the last message that is a question and not a tool's result in a user's clothes.
fn last_query(messages: &[Message<'_>]) -> usize {
    let is_query = |message: &Message<'_>| match message {
        Message::User(text) => {
            !(text.starts_with("<tool_response>") && text.ends_with("</tool_response>"))
        }
        _ => false,
    };
    messages
        .iter()
        .rposition(is_query)
        .unwrap_or(messages.len().saturating_sub(1))
}

/// Where an answer stands in the conversation.
struct Place {
    after_query: bool,
    last: bool,
}

fn assistant(
    prompt: &mut String,
    text: &str,
    reasoning: Option<&str>,
    calls: &[ToolCall<'_>],
    place: Place,
) {
    let (reasoning, content) = match (reasoning, text.split_once("</think>")) {
        (Some(reasoning), _) => (reasoning, text),
        (None, Some((before, after))) => {
            let thought = before.trim_end_matches('\n');
            let thought = thought
                .rsplit_once("<think>")
                .map_or(thought, |(_, thought)| thought);
            let after = after
                .rsplit_once("</think>")
                .map_or(after, |(_, after)| after);
            (
                thought.trim_start_matches('\n'),
                after.trim_start_matches('\n'),
            )
        }
        (None, None) => ("", text),
    };
    prompt.push_str("<|im_start|>assistant\n");
    if place.after_query && (place.last || !reasoning.is_empty()) {
        prompt.push_str("<think>\n");
        prompt.push_str(reasoning.trim_matches('\n'));
        prompt.push_str("\n</think>\n\n");
        prompt.push_str(content.trim_start_matches('\n'));
    } else {
        prompt.push_str(content);
    }
    for (index, call) in calls.iter().enumerate() {
        if index > 0 || !content.is_empty() {
            prompt.push('\n');
        }
        prompt.push_str("<tool_call>\n{\"name\": \"");
        prompt.push_str(call.name);
        prompt.push_str("\", \"arguments\": ");
        prompt.push_str(call.arguments);
        prompt.push_str("}\n</tool_call>");
    }
    prompt.push_str("<|im_end|>\n");
}

/// A tool's result; several in a row share one user turn.
fn tool_result(
    prompt: &mut String,
    before: Option<&Message<'_>>,
    result: &str,
    after: Option<&Message<'_>>,
) {
    if !matches!(before, Some(Message::Tool(_))) {
        prompt.push_str("<|im_start|>user");
    }
    prompt.push_str("\n<tool_response>\n");
    prompt.push_str(result);
    prompt.push_str("\n</tool_response>");
    if !matches!(after, Some(Message::Tool(_))) {
        prompt.push_str("<|im_end|>\n");
    }
}
