//! Remote Execution API messages and the projection of trees to them.
