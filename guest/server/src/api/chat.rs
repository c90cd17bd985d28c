//! The body of `POST /v1/chat/completions`: a conversation, turned into a prompt by the model's chat
//! template.

use alloc::{borrow::Cow, format, string::String, vec::Vec};

use engine::chat::{Message, Thinking, ToolCall, template};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{ApiError, fields::Fields};

/// Reads `messages`, `tools` and what steers the chat template, and applies it. `body` is the text
/// `fields` were parsed from.
pub(super) fn read_prompt(fields: &Fields<'_>, body: &[u8]) -> Result<String, ApiError> {
    let messages = fields.array("messages")?.unwrap_or_default();
    if messages.is_empty() {
        return Err(fields.mismatch("messages", "an array with at least one message"));
    }
    let turns = messages.iter().enumerate();
    let turns: Vec<_> = turns
        .map(|(index, value)| Turn::read(value, index))
        .collect::<Result<_, _>>()?;
    let messages: Vec<_> = turns.iter().map(Turn::message).collect();
    let tools = read_tools(fields, body)?;
    Ok(template(&messages, read_thinking(fields)?, &tools))
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

/// Who speaks. The newer dialect of the API says `developer` for `system`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    System,
    User,
    Assistant,
    Tool,
}

/// One message of the conversation.
struct Turn<'a> {
    role: Role,
    content: Cow<'a, str>,
    reasoning: Option<&'a str>,
    tool_calls: Vec<ToolCall<'a>>,
}

impl<'a> Turn<'a> {
    fn read(value: &'a Value, index: usize) -> Result<Self, ApiError> {
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
        let (reasoning, tool_calls) = match role {
            Role::Assistant => (fields.text("reasoning_content")?, read_tool_calls(&fields)?),
            _ => (None, Vec::new()),
        };
        let content = read_content(&fields)?;
        if content.is_none() && tool_calls.is_empty() {
            return Err(fields.mismatch("content", "a string or an array of text parts"));
        }
        Ok(Self {
            role,
            content: content.unwrap_or_default(),
            reasoning,
            tool_calls,
        })
    }

    /// The message as the template wants it.
    fn message(&self) -> Message<'_> {
        let content = self.content.as_ref();
        match self.role {
            Role::System => Message::System(content),
            Role::User => Message::User(content),
            Role::Tool => Message::Tool(content),
            Role::Assistant => Message::Assistant {
                content,
                reasoning: self.reasoning,
                tool_calls: self.tool_calls.clone(),
            },
        }
    }
}

/// `content`: a string, or parts that are all text and are put together as they stand.
fn read_content<'a>(fields: &Fields<'a>) -> Result<Option<Cow<'a, str>>, ApiError> {
    let parts = match fields.get("content") {
        None => return Ok(None),
        Some(Value::String(text)) => return Ok(Some(Cow::Borrowed(text))),
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
    Ok(Some(Cow::Owned(content)))
}

fn read_tool_calls<'a>(fields: &Fields<'a>) -> Result<Vec<ToolCall<'a>>, ApiError> {
    let calls = fields.array("tool_calls")?.unwrap_or_default();
    let calls = calls.iter().enumerate().map(|(index, call)| {
        let call = Fields::nested(call, fields.name(&format!("tool_calls[{index}]")))?;
        let Some(function) = call.object("function")? else {
            return Err(call.mismatch("function", "an object"));
        };
        match (function.text("name")?, function.text("arguments")?) {
            (Some(name), Some(arguments)) => Ok(ToolCall { name, arguments }),
            (None, _) => Err(function.mismatch("name", "a string")),
            (_, None) => Err(function.mismatch("arguments", "a string of JSON")),
        }
    });
    calls.collect()
}

/// `tools` go into the prompt as the client wrote them; `tool_choice` "none" leaves them out. The model
/// cannot be made to call a tool, so the other choices are refused.
fn read_tools<'a>(fields: &Fields<'_>, body: &'a [u8]) -> Result<Vec<&'a str>, ApiError> {
    for name in ["functions", "function_call"] {
        if fields.get(name).is_some() {
            return Err(ApiError::unsupported(name, "use `tools` instead"));
        }
    }
    let tools = fields.array("tools")?.unwrap_or_default();
    for (index, tool) in tools.iter().enumerate() {
        check_tool(&Fields::nested(tool, format!("tools[{index}]"))?)?;
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
    if tools.is_empty() {
        return Ok(Vec::new());
    }
    raw_tools(body)
}

fn check_tool(tool: &Fields<'_>) -> Result<(), ApiError> {
    if tool.text("type")? != Some("function") {
        return Err(tool.mismatch("type", "`function`"));
    }
    let Some(function) = tool.object("function")? else {
        return Err(tool.mismatch("function", "an object"));
    };
    match function.text("name")? {
        Some(_) => Ok(()),
        None => Err(function.mismatch("name", "a string")),
    }
}

/// The tools' own text. Parsed values would have lost the order of their members, and the model was
/// trained on definitions in the order people write them.
fn raw_tools(body: &[u8]) -> Result<Vec<&str>, ApiError> {
    #[derive(Deserialize)]
    struct Tools<'a> {
        #[serde(borrow)]
        tools: Vec<&'a RawValue>,
    }
    let Tools { tools } = serde_json::from_slice(body).map_err(ApiError::not_json)?;
    Ok(tools.into_iter().map(RawValue::get).collect())
}

fn read_thinking(fields: &Fields<'_>) -> Result<Thinking, ApiError> {
    let options = fields.object("chat_template_kwargs")?;
    let thinking = match options {
        Some(options) => options.boolean("enable_thinking")?,
        None => None,
    };
    Ok(match thinking {
        Some(false) => Thinking::Disabled,
        _ => Thinking::Enabled,
    })
}
