mod manifest;
mod reference;
