//! Expected prompts are what Jinja2 makes of the template in Qwen3's files, with `json.dumps` as its `tojson`.

use super::Message::{Assistant, System, Tool, User};
use super::{Message, Thinking, ToolCall, template};
use alloc::vec;

const WEATHER: &str = "{\"type\":\"function\",\"function\":{\"name\":\"weather\",\"description\":\"Wetter: heute, morgen\",\"parameters\":{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\"}}}}}";

fn check(messages: &[Message<'_>], thinking: Thinking, tools: &[&str], expected: &str) {
    assert_eq!(template(messages, thinking, tools), expected);
}

#[test]
fn one_question() {
    check(
        &[User("Hi")],
        Thinking::Enabled,
        &[],
        concat!(
            "<|im_start|>user\n",
            "Hi<|im_end|>\n",
            "<|im_start|>assistant\n"
        ),
    );
}

#[test]
fn no_thinking() {
    check(
        &[System("Be brief."), User("Hi")],
        Thinking::Disabled,
        &[],
        concat!(
            "<|im_start|>system\n",
            "Be brief.<|im_end|>\n",
            "<|im_start|>user\n",
            "Hi<|im_end|>\n",
            "<|im_start|>assistant\n",
            "<think>\n",
            "\n",
            "</think>\n",
            "\n"
        ),
    );
}

#[test]
fn earlier_reasoning_is_dropped() {
    check(
        &[
            User("1?"),
            Assistant {
                content: "<think>\nhm\n</think>\n\none",
                reasoning: None,
                tool_calls: vec![],
            },
            User("2?"),
            Assistant {
                content: "two",
                reasoning: Some("secret"),
                tool_calls: vec![],
            },
            User("3?"),
        ],
        Thinking::Enabled,
        &[],
        concat!(
            "<|im_start|>user\n",
            "1?<|im_end|>\n",
            "<|im_start|>assistant\n",
            "one<|im_end|>\n",
            "<|im_start|>user\n",
            "2?<|im_end|>\n",
            "<|im_start|>assistant\n",
            "two<|im_end|>\n",
            "<|im_start|>user\n",
            "3?<|im_end|>\n",
            "<|im_start|>assistant\n"
        ),
    );
}

#[test]
fn tools_in_the_system_message() {
    check(
        &[System("Be brief."), User("Rain?")],
        Thinking::Enabled,
        &[WEATHER],
        concat!(
            "<|im_start|>system\n",
            "Be brief.\n",
            "\n",
            "# Tools\n",
            "\n",
            "You may call one or more functions to assist with the user query.\n",
            "\n",
            "You are provided with function signatures within <tools></tools> XML tags:\n",
            "<tools>\n",
            "{\"type\": \"function\", \"function\": {\"name\": \"weather\", \"description\": \"Wetter: heute, morgen\", \"parameters\": {\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\"}}}}}\n",
            "</tools>\n",
            "\n",
            "For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n",
            "<tool_call>\n",
            "{\"name\": <function-name>, \"arguments\": <args-json-object>}\n",
            "</tool_call><|im_end|>\n",
            "<|im_start|>user\n",
            "Rain?<|im_end|>\n",
            "<|im_start|>assistant\n"
        ),
    );
}

#[test]
fn tools_without_system_message() {
    check(
        &[User("Rain?"), System("late")],
        Thinking::Disabled,
        &[WEATHER, WEATHER],
        concat!(
            "<|im_start|>system\n",
            "# Tools\n",
            "\n",
            "You may call one or more functions to assist with the user query.\n",
            "\n",
            "You are provided with function signatures within <tools></tools> XML tags:\n",
            "<tools>\n",
            "{\"type\": \"function\", \"function\": {\"name\": \"weather\", \"description\": \"Wetter: heute, morgen\", \"parameters\": {\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\"}}}}}\n",
            "{\"type\": \"function\", \"function\": {\"name\": \"weather\", \"description\": \"Wetter: heute, morgen\", \"parameters\": {\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\"}}}}}\n",
            "</tools>\n",
            "\n",
            "For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n",
            "<tool_call>\n",
            "{\"name\": <function-name>, \"arguments\": <args-json-object>}\n",
            "</tool_call><|im_end|>\n",
            "<|im_start|>user\n",
            "Rain?<|im_end|>\n",
            "<|im_start|>system\n",
            "late<|im_end|>\n",
            "<|im_start|>assistant\n",
            "<think>\n",
            "\n",
            "</think>\n",
            "\n"
        ),
    );
}

#[test]
fn tool_round_keeps_its_reasoning() {
    check(
        &[
            User("Rain?"),
            Assistant {
                content: "",
                reasoning: Some("\nask\n"),
                tool_calls: vec![
                    ToolCall {
                        name: "weather",
                        arguments: "{\"city\": \"Ulm\"}",
                    },
                    ToolCall {
                        name: "weather",
                        arguments: "{\"city\": \"Bonn\"}",
                    },
                ],
            },
            Tool("dry"),
            Tool("wet"),
            Assistant {
                content: "\n\nhalf",
                reasoning: Some("so"),
                tool_calls: vec![],
            },
        ],
        Thinking::Enabled,
        &[WEATHER],
        concat!(
            "<|im_start|>system\n",
            "# Tools\n",
            "\n",
            "You may call one or more functions to assist with the user query.\n",
            "\n",
            "You are provided with function signatures within <tools></tools> XML tags:\n",
            "<tools>\n",
            "{\"type\": \"function\", \"function\": {\"name\": \"weather\", \"description\": \"Wetter: heute, morgen\", \"parameters\": {\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\"}}}}}\n",
            "</tools>\n",
            "\n",
            "For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n",
            "<tool_call>\n",
            "{\"name\": <function-name>, \"arguments\": <args-json-object>}\n",
            "</tool_call><|im_end|>\n",
            "<|im_start|>user\n",
            "Rain?<|im_end|>\n",
            "<|im_start|>assistant\n",
            "<think>\n",
            "ask\n",
            "</think>\n",
            "\n",
            "<tool_call>\n",
            "{\"name\": \"weather\", \"arguments\": {\"city\": \"Ulm\"}}\n",
            "</tool_call>\n",
            "<tool_call>\n",
            "{\"name\": \"weather\", \"arguments\": {\"city\": \"Bonn\"}}\n",
            "</tool_call><|im_end|>\n",
            "<|im_start|>user\n",
            "<tool_response>\n",
            "dry\n",
            "</tool_response>\n",
            "<tool_response>\n",
            "wet\n",
            "</tool_response><|im_end|>\n",
            "<|im_start|>assistant\n",
            "<think>\n",
            "so\n",
            "</think>\n",
            "\n",
            "half<|im_end|>\n",
            "<|im_start|>assistant\n"
        ),
    );
}

#[test]
fn tool_round_without_reasoning() {
    check(
        &[
            User("Rain?"),
            Assistant {
                content: "Let me see.",
                reasoning: None,
                tool_calls: vec![ToolCall {
                    name: "weather",
                    arguments: "{}",
                }],
            },
            Tool("dry"),
            Assistant {
                content: "Dry.",
                reasoning: None,
                tool_calls: vec![],
            },
            User("<tool_response>\nx\n</tool_response>"),
            Assistant {
                content: "a<think>b</think>c</think>\nd",
                reasoning: None,
                tool_calls: vec![],
            },
        ],
        Thinking::Enabled,
        &[],
        concat!(
            "<|im_start|>user\n",
            "Rain?<|im_end|>\n",
            "<|im_start|>assistant\n",
            "Let me see.\n",
            "<tool_call>\n",
            "{\"name\": \"weather\", \"arguments\": {}}\n",
            "</tool_call><|im_end|>\n",
            "<|im_start|>user\n",
            "<tool_response>\n",
            "dry\n",
            "</tool_response><|im_end|>\n",
            "<|im_start|>assistant\n",
            "Dry.<|im_end|>\n",
            "<|im_start|>user\n",
            "<tool_response>\n",
            "x\n",
            "</tool_response><|im_end|>\n",
            "<|im_start|>assistant\n",
            "<think>\n",
            "b\n",
            "</think>\n",
            "\n",
            "d<|im_end|>\n",
            "<|im_start|>assistant\n"
        ),
    );
}

#[test]
fn no_question_at_all() {
    check(
        &[
            System("s"),
            Assistant {
                content: "said",
                reasoning: None,
                tool_calls: vec![],
            },
        ],
        Thinking::Enabled,
        &[],
        concat!(
            "<|im_start|>system\n",
            "s<|im_end|>\n",
            "<|im_start|>assistant\n",
            "said<|im_end|>\n",
            "<|im_start|>assistant\n"
        ),
    );
}
