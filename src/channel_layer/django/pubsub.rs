//! Owns the listening in `channels_redis.pubsub`: one pattern for each of the two channels. Nothing is kept there: what is
//! published while nobody listens is gone, so a broken connection is replaced at once. Enter at [`run`].

use super::{AGAIN, Common, Heard, LOOK_EVERY, message};
use crate::hub::event::Unusable;
use redis::RedisResult;

/// Until the server ends.
pub(super) fn run(common: &Common) {
    while !common.is_over() {
        if listen(common).is_err() {
            common.road.pause(AGAIN);
        }
    }
}

fn listen(common: &Common) -> RedisResult<()> {
    let mut link = common.address.connect(LOOK_EVERY)?;
    // A subscriber hears nothing of a Redis that has hung: the log's reader does.
    let returns = common.road.returns();
    let start = format!("{}__group__", common.prefix);
    let mut subscriber = link.as_pubsub();
    for channel in ["property", "tenant"] {
        subscriber.psubscribe(format!("{}{channel}_notifications_*", literally(&start)))?;
    }
    subscriber.set_read_timeout(Some(LOOK_EVERY))?;
    while !common.is_over() && returns == common.road.returns() {
        let message = match subscriber.get_message() {
            Ok(message) => message,
            Err(e) if e.is_timeout() => continue,
            Err(e) => return Err(e),
        };
        let mut heard = Heard::default();
        let recipient = message.get_channel_name().strip_prefix(&start).and_then(message::recipient);
        match (recipient, heard.read(common, message.get_payload_bytes())) {
            (Some((channel, user)), Some(event)) => heard.tell(common, &event, channel, user),
            (None, Some(_)) => heard.drop(Unusable::WrongGroup),
            (_, None) => {}
        }
        heard.pass_on(common);
    }
    Ok(())
}

/// A pattern that means just this text.
fn literally(text: &str) -> String {
    text.chars().flat_map(|c| ("*?[]\\^-".contains(c)).then_some('\\').into_iter().chain([c])).collect()
}
