//! A minimal chat: `cargo run -p client --example chat -- tcp://127.0.0.1:8443 "Hello"`.
//!
//! Accepts servers without a trust domain, so use it with development guests only.

use std::error::Error;
use std::io::{Write, stdout};

use client::{ChatRequest, Client, Message, Options, Sampling, Trust};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(prompt)) = (arguments.next(), arguments.next()) else {
        return Err("usage: chat ADDRESS PROMPT".into());
    };

    eprintln!("warning: whoever answers at {address} is trusted with this prompt");
    let mut client = Client::new(address.parse()?, Options::new(Trust::InsecureNoTee))?;
    let Some(model) = client.models()?.into_iter().next() else {
        return Err("the server offers no model".into());
    };

    let request = ChatRequest {
        model: model.id,
        messages: vec![Message::new("user", prompt)],
        sampling: Sampling {
            max_tokens: Some(128),
            temperature: Some(0.7),
            ..Sampling::default()
        },
        thinking: None,
    };
    for chunk in client.chat_stream(&request)? {
        for choice in chunk?.choices {
            print!("{}", choice.delta.content.unwrap_or_default());
            stdout().flush()?;
        }
    }
    println!();
    Ok(())
}
