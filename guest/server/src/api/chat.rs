//! The body of `POST /v1/chat/completions`: a conversation.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

use serde_json::Value;

use super::{ApiError, fields::Fields};
use crate::inference::{Conversation, Message, Role, ToolCall};

/// Reads `messages`, `tools` and what steers the chat template.
pub(super) fn read_conversation(fields: &Fields<'_>) -> Result<Conversation, ApiError> {
    let messages = fields.array("messages")?.unwrap_or_default();
    if messages.is_empty() {
        return Err(fields.mismatch("messages", "an array with at least one message"));
    }
    let messages = messages.iter().enumerate();
    Ok(Conversation {
        messages: messages
            .map(|(index, value)| read_message(value, index))
            .collect::<Result<_, _>>()?,
        tools: read_tools(fields)?,
        thinking: read_thinking(fields)?,
    })
}

/// The number of alternatives to report per token, if log-probabilities are wanted.
pub(super) fn read_logprobs(fields: &Fields<'_>) -> Result<Option<usize>, ApiError> {
    let wanted = fields.boolean("logprobs")?.unwrap_or(false);
    let top = fields.integer("top_logprobs", 0..=20)?;
    if top.is_some_and(|count| count > 0) && !wanted {
        return Err(ApiError::invalid(
            "top_logprobs",
            "`top_logprobs` needs `logprobs` to be true",
        ));
    }
    Ok(wanted.then(|| top.unwrap_or(0)))
}

fn read_message(value: &Value, index: usize) -> Result<Message, ApiError> {
    let fields = Fields::nested(value, format!("messages[{index}]"))?;
    let role = match fields.text("role")? {
        Some("system" | "developer") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("tool") => Role::Tool,
        _ => {
            return Err(fields.mismatch("role", "system, developer, user, assistant or tool"));
        }
    };
    let tool_calls = match role {
        Role::Assistant => read_tool_calls(&fields)?,
        _ => Vec::new(),
    };
    let content = read_content(&fields)?;
    if content.is_none() && tool_calls.is_empty() {
        return Err(fields.mismatch("content", "a string or an array of text parts"));
    }
    Ok(Message {
        role,
        content: content.unwrap_or_default(),
        tool_calls,
    })
}

/// `content`: a string, or parts that are all text and are put together as they stand.
fn read_content(fields: &Fields<'_>) -> Result<Option<String>, ApiError> {
    let parts = match fields.get("content") {
        None => return Ok(None),
        Some(Value::String(text)) => return Ok(Some(text.clone())),
        Some(Value::Array(parts)) => parts,
        Some(_) => return Err(fields.mismatch("content", "a string or an array of text parts")),
    };
    let mut content = String::new();
    for (index, part) in parts.iter().enumerate() {
        let part = Fields::nested(part, fields.name(&format!("content[{index}]")))?;
        if part.text("type")? != Some("text") {
            return Err(ApiError::unsupported(
                part.name("type"),
                "only content parts of type `text` are supported",
            ));
        }
        match part.text("text")? {
            Some(text) => content.push_str(text),
            None => return Err(part.mismatch("text", "a string")),
        }
    }
    Ok(Some(content))
}

fn read_tool_calls(fields: &Fields<'_>) -> Result<Vec<ToolCall>, ApiError> {
    let calls = fields.array("tool_calls")?.unwrap_or_default();
    let calls = calls.iter().enumerate().map(|(index, call)| {
        let call = Fields::nested(call, fields.name(&format!("tool_calls[{index}]")))?;
        let Some(function) = call.object("function")? else {
            return Err(call.mismatch("function", "an object"));
        };
        match (function.text("name")?, function.text("arguments")?) {
            (Some(name), Some(arguments)) => Ok(ToolCall {
                name: name.into(),
                arguments: arguments.into(),
            }),
            (None, _) => Err(function.mismatch("name", "a string")),
            (_, None) => Err(function.mismatch("arguments", "a string of JSON")),
        }
    });
    calls.collect()
}

/// `tools` go into the prompt as they are; `tool_choice` "none" leaves them out. The model cannot be
/// made to call a tool, so the other choices are refused.
fn read_tools(fields: &Fields<'_>) -> Result<Vec<String>, ApiError> {
    for name in ["functions", "function_call"] {
        if fields.get(name).is_some() {
            return Err(ApiError::unsupported(name, "use `tools` instead"));
        }
    }
    let tools = fields.array("tools")?.unwrap_or_default();
    for (index, tool) in tools.iter().enumerate() {
        let tool = Fields::nested(tool, format!("tools[{index}]"))?;
        let function = match tool.text("type")? {
            Some("function") => tool.object("function")?,
            _ => return Err(tool.mismatch("type", "`function`")),
        };
        let Some(function) = function else {
            return Err(tool.mismatch("function", "an object"));
        };
        if function.text("name")?.is_none() {
            return Err(function.mismatch("name", "a string"));
        }
    }
    match fields.get("tool_choice") {
        None => {}
        Some(Value::String(choice)) if choice == "auto" => {}
        Some(Value::String(choice)) if choice == "none" => return Ok(Vec::new()),
        Some(_) => {
            return Err(ApiError::unsupported(
                "tool_choice",
                "only the tool choices `none` and `auto` are supported",
            ));
        }
    }
    Ok(tools.iter().map(Value::to_string).collect())
}

fn read_thinking(fields: &Fields<'_>) -> Result<bool, ApiError> {
    let options = fields.object("chat_template_kwargs")?;
    let thinking = match options {
        Some(options) => options.boolean("enable_thinking")?,
        None => None,
    };
    Ok(thinking.unwrap_or(true))
}
