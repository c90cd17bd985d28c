//! `vitrine tokenize`: text to token ids, a line at a time.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write, stdin, stdout};
use std::path::PathBuf;

use engine::gguf::Gguf;
use engine::tokenizer::Tokenizer;

use crate::failure::Failure;
use crate::host::ModelFile;

/// Print the token ids of each line of text
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Special tokens such as <|im_start|> are recognised unless --plain. A line's end is not part of it.

Examples:
  vitrine tokenize --model tiny.gguf --file text.txt --json
  echo 'Good morning.' | vitrine tokenize --model tiny.gguf")]
pub struct Args {
    /// The model (GGUF)
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// The text [default: stdin]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Each line is a JSON string, which may have line ends in it
    #[arg(long)]
    json_lines: bool,
    /// Take text that spells a control token as text
    #[arg(long)]
    plain: bool,
    /// Print each line's ids as a JSON array
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let file = ModelFile::read(&args.model)?;
    let unusable = |error| Failure::usage(format!("{}: {error}", args.model.display()));
    let tokenizer = Gguf::parse(file.bytes())
        .and_then(|gguf| Tokenizer::from_gguf(&gguf))
        .map_err(unusable)?;
    let input: Box<dyn Read> =
        match &args.file {
            Some(path) => Box::new(File::open(path).map_err(|error| {
                Failure::usage(format!("cannot read {}: {error}", path.display()))
            })?),
            None => Box::new(stdin()),
        };
    let mut input = BufReader::new(input);
    let mut out = BufWriter::new(stdout().lock());
    let mut line = Vec::new();
    while read_line(&mut input, &mut line)? {
        let text = core::str::from_utf8(&line)
            .map_err(|error| Failure::new(format!("the text is not UTF-8: {error}")))?;
        let text = match args.json_lines {
            true => serde_json::from_str(text)
                .map_err(|error| Failure::new(format!("a line is not a JSON string: {error}")))?,
            false => Cow::Borrowed(text),
        };
        let ids = tokenizer.encode(&text, !args.plain);
        let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
        match args.json {
            true => writeln!(out, "[{}]", ids.join(",")),
            false => writeln!(out, "{}", ids.join(" ")),
        }
        .map_err(|error| Failure::new(format!("cannot write: {error}")))?;
    }
    out.flush()
        .map_err(|error| Failure::new(format!("cannot write: {error}")))
}

/// Reads a line without its line feed; false at the end.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> Result<bool, Failure> {
    line.clear();
    let read = input
        .read_until(b'\n', line)
        .map_err(|error| Failure::new(format!("cannot read the text: {error}")))?;
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok(read > 0)
}
