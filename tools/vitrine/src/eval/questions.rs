//! Multiple choice: which continuation of a question a model finds likeliest.

use serde::Deserialize;

use super::HostSession;
use super::measures::log_sum_exp;
use crate::failure::Failure;

/// A question with its answers.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    question: String,
    choices: Vec<String>,
    /// Which choice is right, from 0.
    answer: usize,
}

impl Question {
    /// Reads JSON Lines; empty lines are skipped.
    pub fn parse(text: &str) -> Result<Vec<Self>, String> {
        let lines = text.lines().enumerate();
        lines
            .filter(|(_, line)| !line.trim().is_empty())
            .map(|(index, line)| {
                let at = |problem: String| format!("line {}: {problem}", index + 1);
                let question: Self =
                    serde_json::from_str(line).map_err(|error| at(error.to_string()))?;
                match question.answer < question.choices.len() {
                    true => Ok(question),
                    false => Err(at("`answer` is not the index of a choice".to_owned())),
                }
            })
            .collect()
    }
}

/// The share of questions answered correctly; `None` without questions.
pub fn accuracy(
    session: &mut HostSession<'_>,
    questions: &[Question],
) -> Result<Option<f64>, Failure> {
    if questions.is_empty() {
        return Ok(None);
    }
    let mut correct = 0_u32;
    for question in questions {
        let mut best = (f64::NEG_INFINITY, 0);
        for (index, choice) in question.choices.iter().enumerate() {
            let score = score(session, &question.question, choice)?;
            if score > best.0 {
                best = (score, index);
            }
        }
        correct += u32::from(best.1 == question.answer);
    }
    Ok(Some(f64::from(correct) / questions.len() as f64))
}

/// Mean log-probability of a choice's tokens after the question.
fn score(session: &mut HostSession<'_>, question: &str, choice: &str) -> Result<f64, Failure> {
    let tokenizer = session.model().tokenizer();
    let question = tokenizer.encode(question, false);
    let choice = tokenizer.encode(choice, false);
    session.clear();
    let mut next = choice.iter();
    let mut sum = 0.0;
    let mut take = |logits: &[f32]| {
        if let Some(&token) = next.next() {
            let logit = logits
                .get(token as usize)
                .copied()
                .unwrap_or(f32::NEG_INFINITY);
            sum += f64::from(logit) - log_sum_exp(logits);
        }
    };
    take(session.feed(&question).map_err(Failure::usage)?);
    if choice.len() > 1 {
        session.feed_each(&choice, take).map_err(Failure::usage)?;
    }
    Ok(sum / choice.len().max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_files_are_strict() {
        let good = "{\"question\":\"2+2=\",\"choices\":[\"3\",\"4\"],\"answer\":1}\n\n";
        assert_eq!(Question::parse(good).unwrap().len(), 1);
        let error =
            Question::parse("{\"question\":\"q\",\"choices\":[\"a\"],\"answer\":1}").unwrap_err();
        assert!(error.contains("line 1"), "{error}");
        assert!(Question::parse("{\"question\":\"q\",\"choices\":[],\"answer\":0}").is_err());
        assert!(Question::parse("{\"question\":\"q\"}").is_err());
    }
}
