//! Whose turn it is: images in turn, and within an image its feeds, for each priority apart.

use std::collections::{HashMap, VecDeque};

use crate::{FeedId, ImageId};

/// Feeds that have work, by priority.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    lanes: [Lane; 3],
}

#[derive(Debug, Default)]
struct Lane {
    images: VecDeque<ImageId>,
    feeds: HashMap<ImageId, VecDeque<FeedId>>,
}

/// One round through all feeds of a lane: each comes once.
#[derive(Debug)]
pub(crate) struct Turns {
    lane: usize,
    images_left: usize,
    feeds_left: usize,
}

impl Lanes {
    fn lane(&mut self, lane: usize) -> Option<&mut Lane> {
        self.lanes.get_mut(lane)
    }

    /// Lists a feed that has work now and had none.
    pub(crate) fn push(&mut self, lane: usize, image: ImageId, feed: FeedId) {
        let Some(lane) = self.lane(lane) else { return };
        let feeds = lane.feeds.entry(image).or_default();
        if feeds.is_empty() {
            lane.images.push_back(image);
        }
        feeds.push_back(feed);
    }

    /// A feed has no more work of that priority.
    pub(crate) fn take(&mut self, lane: usize, image: ImageId, feed: FeedId) {
        let Some(lane) = self.lane(lane) else { return };
        let Some(feeds) = lane.feeds.get_mut(&image) else {
            return;
        };
        // Whose turn it just was is the last.
        if let Some(at) = feeds.iter().rposition(|other| *other == feed) {
            feeds.remove(at);
        }
        if feeds.is_empty() {
            lane.feeds.remove(&image);
            if let Some(at) = lane.images.iter().rposition(|other| *other == image) {
                lane.images.remove(at);
            }
        }
    }

    /// A feed is gone.
    pub(crate) fn remove(&mut self, image: ImageId, feed: FeedId) {
        for lane in 0..self.lanes.len() {
            self.take(lane, image, feed);
        }
    }

    /// A round through all that have work.
    pub(crate) fn turns(&self, lane: usize) -> Turns {
        let images_left = self.lanes.get(lane).map_or(0, |lane| lane.images.len());
        Turns {
            lane,
            images_left,
            feeds_left: 0,
        }
    }
}

impl Turns {
    /// The next in the round. Whoever had its turn is the last of the next.
    pub(crate) fn next(&mut self, lanes: &mut Lanes) -> Option<(ImageId, FeedId)> {
        let lane = lanes.lane(self.lane)?;
        if self.feeds_left == 0 {
            self.images_left = self.images_left.checked_sub(1)?;
            let image = lane.images.pop_front()?;
            lane.images.push_back(image);
            self.feeds_left = lane.feeds.get(&image).map_or(0, VecDeque::len);
        }
        let image = *lane.images.back()?;
        let feeds = lane.feeds.get_mut(&image)?;
        let feed = feeds.pop_front()?;
        feeds.push_back(feed);
        self.feeds_left = self.feeds_left.saturating_sub(1);
        Some((image, feed))
    }
}
